"""One type on one stream: what its two variants have in common.

In: requests of the type, snapshots, what must wait. Out: drafts of responses; acknowledgements and rejections.
Never: the order among types, nonces of its own, sockets, clocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from kumafast.snapshot.resource import XdsResource
from kumafast.snapshot.snapshot import Content, Snapshot
from kumafast.stream.messages import Acknowledged, Event, Rejected, Request
from kumafast.stream.subscription import Subscription


class Draft(NamedTuple):
    """A response that has not been numbered. `changed` are the names that the client may not know with this content."""

    version: str
    resources: Sequence[XdsResource]
    removed: Sequence[str]
    changed: Collection[str]
    settles: Content | None = None
    """The content of which nothing is due once this is sent; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hold:
    """What must wait for other types: updates, of which only what the client asked for goes out; or removals."""

    updates: bool = False
    removals: bool = False

    def __bool__(self) -> bool:
        return self.updates or self.removals


# Of most types nothing is ever sent again, and an empty set for each stream is 216 bytes. Nobody adds to it.
_NOTHING: set[str] = set()

NO_HOLD = Hold()
HOLD_UPDATES = Hold(updates=True)
HOLD_REMOVALS = Hold(removals=True)

ERROR_CHARACTERS_MAX = 4096
"""What is kept, told and logged of the reason that a client gives for a refusal."""


class Flight(NamedTuple):
    """The response that the client has neither taken nor refused."""

    nonce: str
    draft: Draft

    @property
    def names(self) -> list[str]:
        """What is sent or removed."""
        return [*[resource.name for resource in self.draft.resources], *self.draft.removed]


class Substream(ABC):
    """At most one response is in flight (rule 54), so that the next one is the difference to the newest snapshot."""

    def __init__(self, type_url: str, *, resend: set[str] | None = None) -> None:
        self.type_url = type_url
        self.subscription = Subscription()
        self.flight: Flight | None = None
        self.is_update = False
        """Whether the client holds something, so that what comes next changes a running proxy."""
        self.resend: set[str] = _NOTHING if resend is None else resend
        """Names that must be sent although the client holds them: endpoints of clusters that are warming anew
        (rule 50). The set belongs to the session."""
        self._is_open = False
        self._must_answer = False
        # The members of rejected responses, each with those that it was rejected with. Which of them the client took
        # is unknown (rule 17), and it may have refused a good one for a bad one's sake: when one of them changes, all
        # are offered again; what was not among them goes out alone.
        self._refused: dict[str, Collection[str]] = {}
        self._is_set_rejected = False
        # The digest of the content for which nothing was due; None when that has to be looked at again.
        self._settled: str | None = None
        self.quiet: Snapshot | None = None
        """A snapshot of which nothing is due, as long as nothing must be sent again: who has it need not ask."""
        # What was due of a snapshot, and of what must be sent again, when that was last looked at; nothing was said or
        # sent since.
        self._seen: tuple[Snapshot, frozenset[str], Draft] | None = None

    def copy(self, *, resend: set[str] | None) -> Self:
        """Another substream in the same state; `resend` is the set of its own session."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.subscription = self.subscription.copy()
        twin._refused = self._refused.copy()
        twin.resend = _NOTHING if resend is None else resend
        return twin

    def rest_key(self) -> Hashable | None:
        """What it has in common with all that will answer alike; None while anything is unsettled."""
        if self.flight is not None or self._settled is None or self._must_answer or self.is_rejected:
            return None
        return (self.type_url, self._settled, self.is_update, self.subscription.key())

    @property
    def is_rejected(self) -> bool:
        """Whether the client has refused something that is still what it should hold."""
        return self._is_set_rejected or bool(self._refused)

    @abstractmethod
    def receive(self, request: Request) -> Event | None:
        """Take in what the client says; an event where that settles the response in flight."""

    def due(self, snapshot: Snapshot, hold: Hold = NO_HOLD) -> Draft | None:
        """What the client lacks of this snapshot, as far as it may be sent now; None where it lacks nothing."""
        digest = snapshot.digest(self.type_url)
        if self._settled == digest and not self.resend:
            self._seen = None
            self.quiet = snapshot
            return None
        seen = self._seen
        if hold is NO_HOLD and seen is not None and seen[0] is snapshot and seen[1] == self.resend:
            return seen[2]
        draft = self._draft(snapshot, hold)
        if hold is NO_HOLD and draft is None:
            self._settle(snapshot)
        return draft

    def remember(self, snapshot: Snapshot, draft: Draft) -> None:
        """Keep what was due of a snapshot, which is not sent now and will be asked for again."""
        self._seen = (snapshot, frozenset(self.resend), draft)

    def _settle(self, snapshot: Snapshot) -> None:
        """Take note that nothing of a snapshot is due."""
        self._settled = snapshot.digest(self.type_url)
        self.quiet = snapshot

    @abstractmethod
    def _draft(self, snapshot: Snapshot, hold: Hold) -> Draft | None: ...

    def send(self, draft: Draft, nonce: str, snapshot: Snapshot) -> None:
        """Take note that a draft of what a snapshot has goes out as the response with this nonce."""
        self.flight = Flight(nonce, draft)
        if self._refused:
            self._forget_refusal_of(self.flight.names)
        if self.resend:
            self.resend.difference_update(self._sent(draft), draft.removed)
        self._must_answer = False
        self.is_update = True
        self._seen = None
        if draft.settles is None:
            self._settled = self.quiet = None
        else:
            self._settled, self.quiet = draft.settles.digest, snapshot
        self._record(draft)

    def _sent(self, draft: Draft) -> Iterable[str]:
        """The names of what a draft sends."""
        return [resource.name for resource in draft.resources]

    @abstractmethod
    def _record(self, draft: Draft) -> None: ...

    def _land(self, error: str | None) -> Event:
        """Settle the response in flight: taken where there is no error."""
        flight = self.flight
        assert flight is not None
        self.flight = None
        if error is None:
            self._is_set_rejected = False
            return Acknowledged(self.type_url, flight.draft.version)
        self._refuse(flight)
        return Rejected(self.type_url, flight.draft.version, error[:ERROR_CHARACTERS_MAX])

    def _refuse(self, flight: Flight) -> None:
        group = frozenset(name for name in flight.names if name in self.subscription)
        self._refused.update(dict.fromkeys(group, group))

    def _refused_with(self, names: Iterable[str]) -> set[str]:
        """All that was rejected together with one of these names and has not been offered since."""
        groups = [self._refused[name] for name in names if name in self._refused] if self._refused else []
        return {member for group in groups for member in group if self._refused.get(member) is group}

    def _forget_refusal_of(self, names: Iterable[str]) -> None:
        if self._refused:
            for name in names:
                self._refused.pop(name, None)
