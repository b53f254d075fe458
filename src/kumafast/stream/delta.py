"""Only what has changed, for one type: names add up, and each resource has a version of its own.

In: requests, snapshots. Out: the difference between what the client holds and what it should hold.
Never: a name twice in a response, or both sent and removed (rule 40).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Self

from kumafast._core import diff_versions, forget_names
from kumafast.snapshot.resource import XdsResource
from kumafast.snapshot.snapshot import Content, Snapshot
from kumafast.stream.messages import Event, Rejected, Request
from kumafast.stream.subscription import WILDCARD
from kumafast.stream.substream import NO_HOLD, Draft, Hold, Substream

# How many sets of names that were sent again a content remembers.
_AGAIN_MAX = 16


class DeltaSubstream(Substream):
    """One type of a delta stream."""

    def __init__(self, type_url: str, *, resend: set[str] | None = None) -> None:
        super().__init__(type_url, resend=resend)
        # The version that the client was last told of each name, or that it claimed to hold when it came. What it
        # refused is in here, so that it is not sent again (rule 11), and any other version is (rule 17).
        self._told: dict[str, str] = {}
        # In place of that, while nothing else is to be said of it: the content of which the client was told all that
        # it asks for. Most sessions are so nearly always, and then a push costs them no entry for each resource.
        self._held: Content | None = None
        # Names that the client asked for and was told do not exist (rules 32, 39).
        self._told_absent: set[str] = set()
        # Names that the next response must mention, whatever the client holds (rules 28, 29, 31).
        self._asked: set[str] = set()

    def copy(self, *, resend: set[str] | None) -> Self:
        twin = super().copy(resend=resend)
        twin._told = {} if self._held is not None else self._told.copy()
        twin._told_absent = self._told_absent.copy()
        twin._asked = self._asked.copy()
        return twin

    def rest_key(self) -> Hashable | None:
        # With nothing due, what it was told is what is asked for of the content with that digest.
        return None if self._asked else super().rest_key()

    def receive(self, request: Request) -> Event | None:
        event = None
        self._seen = None
        if self.flight is not None and request.nonce == self.flight.nonce:
            event = self._land(request.error)
            if self._is_open and request.error is None and not request.subscribe and not request.unsubscribe:
                # Nothing but an acknowledgement.
                return event
        self.quiet = None
        self._tell_apart()
        # Whatever the nonce, what is subscribed and unsubscribed counts (rule 14).
        was_wildcard = self.subscription.is_wildcard
        dropped = self.subscription.alter(subscribe=request.subscribe, unsubscribe=request.unsubscribe)
        if not self._is_open:
            self._open(request)
        else:
            self._asked.update(name for name in request.subscribe if name != WILDCARD)
            self._must_answer = self._must_answer or (self.subscription.is_wildcard and not was_wildcard)
            self._drop(dropped, was_wildcard=was_wildcard)
        if event is None or isinstance(event, Rejected) or request.subscribe or request.unsubscribe:
            self._settled = None
        return event

    def _open(self, request: Request) -> None:
        """The first request of the type says what the client still holds from an earlier stream (rule 44)."""
        self._is_open = True
        self._told = dict(self.subscription.select(request.initial_versions))
        self.is_update = bool(self._told)
        # Envoy waits for a wildcard's first answer in order to start, so it comes even when it is empty (rule 43); a
        # client that comes back and holds all of it has started (rule 46).
        self._must_answer = self.subscription.is_wildcard and not request.initial_versions

    def _drop(self, names: Iterable[str], *, was_wildcard: bool) -> None:
        if self.subscription.is_wildcard:
            # The client may have forgotten a name that the wildcard still covers, so it is told of it again (rule 31).
            self._asked.update(names)
            self._told_absent.difference_update(names)
            return
        if was_wildcard:
            names = [*self._told, *self._told_absent, *self._asked]
        for name in names:
            if name not in self.subscription:
                self._told.pop(name, None)
                self._told_absent.discard(name)
                self._asked.discard(name)
                self._refused.pop(name, None)

    def due(self, snapshot: Snapshot, hold: Hold = NO_HOLD) -> Draft | None:
        # By far most often a type that is asked for as a whole, by a client that holds all of what was there before.
        if hold is NO_HOLD and self.subscription.is_wildcard and not self.resend:
            content = snapshot.content(self.type_url)
            if content is not None and content.before == self._settled and content.before is not None:
                names = content.changed_names
                if names and not (self._asked or self._refused or self._must_answer):
                    return Draft(snapshot.version(self.type_url), content.changed_resources, (), names, content)
        return super().due(snapshot, hold)

    def _draft(self, snapshot: Snapshot, hold: Hold) -> Draft | None:
        settled = self._settled
        if settled is not None and not (self._asked or self._refused or self._must_answer):
            # Nothing was due of the content with that digest: all that can be due is what differs from it.
            content = snapshot.content(self.type_url)
            if content is not None:
                if content.digest == settled:
                    return self._again(content, snapshot, hold)
                if content.before == settled:
                    return self._change(content, snapshot, hold)
        return self._draft_all(snapshot, hold)

    def _change(self, content: Content, snapshot: Snapshot, hold: Hold) -> Draft | None:
        """What is due of a content that differs from what the client has been told of."""
        return self._draft_of(content.changed_names, content.changed_resources, content, snapshot, hold)

    def _again(self, content: Content, snapshot: Snapshot, hold: Hold) -> Draft | None:
        """What must be sent again of a content that the client has been told of."""
        if not content.is_shared or hold.updates or not self.subscription.names.keys() >= self.resend:
            return self._draft_of((), (), content, snapshot, hold)
        # The same for all whose clusters warm with those of this one.
        resend = frozenset(self.resend)
        names, resources = content.again.get(resend, ((), ()))
        if not names:
            there = content.resources
            names = tuple(sorted([name for name in resend if name in there]))
            if not names:
                return None
            if len(content.again) >= _AGAIN_MAX:
                content.again.clear()
            resources = tuple([there[name] for name in names])
            content.again[resend] = (names, resources)
        return Draft(snapshot.version(self.type_url), resources, (), names, content)

    def _draft_of(
        self,
        names: Sequence[str],
        resources: Sequence[XdsResource],
        content: Content,
        snapshot: Snapshot,
        hold: Hold,
    ) -> Draft | None:
        """What is due where only these, which are in both snapshots, differ: no walk through the others.

        What must be sent all the same comes after it.
        """
        subscription = self.subscription
        if hold.updates:
            names = resources = ()
        elif names and not subscription.is_wildcard:
            asked = subscription.names
            resources = tuple([each for each in resources if each.name in asked])
            names = [each.name for each in resources]
        if self.resend:
            there = content.resources
            again = sorted([name for name in self.resend.difference(names) if name in there and name in subscription])
            names = [*names, *again]
            resources = (*resources, *[there[name] for name in again])
        if not names:
            return None
        return Draft(snapshot.version(self.type_url), resources, (), names, None if hold.updates else content)

    def _tell_apart(self) -> None:
        """Have what the client was told by name, before what it asks for is another."""
        if self._held is not None:
            held, self._held = self._held, None
            self._told = dict(self.subscription.select(held.versions))

    def _settle(self, snapshot: Snapshot) -> None:
        super()._settle(snapshot)
        # Nothing of it is due, so it is what the client was told.
        self._held = snapshot.content(self.type_url)
        if self._held is not None:
            self._told = {}

    def _draft_all(self, snapshot: Snapshot, hold: Hold) -> Draft | None:
        self._tell_apart()
        wanted = self.subscription.select(snapshot.resource_versions(self.type_url))
        changed_names, gone = diff_versions(self._told, wanted)
        # What is new goes ahead of updates, unless it may stand where something stands that is to go.
        goes_ahead = not gone
        if hold.removals or hold.updates:
            gone = [name for name in gone if name in self._asked]
        again = self._refused_with([*changed_names, *gone])
        changed = {*changed_names, *again}
        if hold.updates:
            changed = {name for name in changed if goes_ahead and name not in self._told}
        changed |= self.resend
        changed |= self._asked
        unknown = {name for name in self.subscription.names if name not in self._told_absent} | self._asked | again
        absent = sorted(name for name in unknown if name not in wanted and name not in self._told)
        removed = (*gone, *absent)
        resources = snapshot.resources(self.type_url)
        # In the snapshot's order, without a walk through all of it where little has changed.
        sent = [name for name in changed_names if name in changed]
        sent += sorted(name for name in changed.difference(sent) if name in wanted)
        if not sent and not removed and not self._must_answer:
            return None
        version = snapshot.version(self.type_url)
        return Draft(version, tuple(resources[name] for name in sent), removed, frozenset(sent))

    def _sent(self, draft: Draft) -> Iterable[str]:
        # Nothing else is sent than what has changed, or must be sent again.
        return draft.changed

    def _record(self, draft: Draft) -> None:
        if draft.settles is not None and self._held is not None:
            self._held = draft.settles
            return
        self._tell_apart()
        told = self._told
        for resource in draft.resources:
            told[resource.name] = resource.version
        if self._told_absent:
            self._told_absent.difference_update([resource.name for resource in draft.resources])
        forget_names(told, draft.removed)
        if names := self.subscription.names:
            self._told_absent.update([name for name in draft.removed if name in names])
        self._forget_refusal_of(draft.removed)
        self._asked.clear()
