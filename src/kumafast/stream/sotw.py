"""The state of the world, for one type: each request names all that is wanted, each response counts as a whole.

In: requests, snapshots. Out: the full set (CDS, LDS and types unknown here) or only what changed (RDS, EDS, SDS, …).
Never: a response to a stale request, to an acknowledgement, or with content that was rejected.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Self

from kumafast.snapshot.resource import CLUSTER, ENDPOINT, EXTENSION, LISTENER, ROUTE, RUNTIME, SECRET, XdsResource
from kumafast.snapshot.snapshot import Snapshot, digest_of
from kumafast.stream.messages import Event, Request
from kumafast.stream.substream import Draft, Flight, Hold, Substream

# What is missing in a response of these types stays as it is (rule 36); of any other type it is deleted (rule 35).
_PARTIAL_TYPES = frozenset({ENDPOINT, ROUTE, SECRET, RUNTIME, EXTENSION})
# Only of these may a wildcard's first answer be left out (rule 22).
_WILDCARD_TYPES = frozenset({CLUSTER, LISTENER})


class SotwSubstream(Substream):
    """One type of a SotW stream."""

    def __init__(self, type_url: str, *, resend: set[str] | None = None) -> None:
        super().__init__(type_url, resend=resend)
        self._is_partial = type_url in _PARTIAL_TYPES
        # What the client was last told of each name that it asks for, whether it took it or not: what it refused is in
        # here, and therefore not sent again (rule 11).
        self._told: dict[str, XdsResource] = {}
        self._claimed_version = ""
        self._nonce = ""
        # What differed in full sets that were refused: the client may or may not have taken it.
        self._uncertain: set[str] = set()

    def copy(self, *, resend: set[str] | None) -> Self:
        twin = super().copy(resend=resend)
        twin._uncertain = self._uncertain.copy()
        twin._told = self._told.copy()
        return twin

    def rest_key(self) -> Hashable | None:
        key = super().rest_key()
        # A request is told from a stale one by the last nonce.
        return None if key is None or self._uncertain or self._claimed_version else (key, self._nonce)

    def receive(self, request: Request) -> Event | None:
        if self._nonce and request.nonce and request.nonce != self._nonce:
            # The client is about to answer the newer response, and will say then what it wants (rule 13).
            return None
        event = None
        if self.flight is not None and request.nonce == self.flight.nonce:
            event = self._land(request.error)
            if request.error is None:
                self._uncertain.clear()
        is_asking = self.subscription.replace(request.names)
        if not self._is_open:
            self._is_open = True
            self._claimed_version = request.version
            self.is_update = bool(request.version)
            # A full set is answered even when it is empty: Envoy waits for it in order to start (rule 43). A name
            # that does not exist yet waits quietly (rule 51); and Envoy, which on a new stream repeats an empty list
            # where it has no names any more, would not acknowledge an empty answer.
            self._must_answer = not self._is_partial
        elif is_asking:
            self._must_answer = not self._is_partial
        if not self.subscription.is_wildcard:
            names = self.subscription.names
            self._told = {name: resource for name, resource in self._told.items() if name in names}
            self._forget_refusal_of([name for name in self._refused if name not in names])
        self._settled = self._seen = self.quiet = None
        return event

    def _draft(self, snapshot: Snapshot, hold: Hold) -> Draft | None:
        self._adopt_claim(snapshot)
        wanted = self.subscription.select(snapshot.resources(self.type_url))
        if self._is_partial:
            return self._draft_changes(snapshot, wanted, hold)
        return self._draft_all(snapshot, wanted, hold)

    def _adopt_claim(self, snapshot: Snapshot) -> None:
        """On a new stream, believe a client that says it holds the very version of a type's content.

        A wildcard needs no answer then (rule 22). Names are answered, for some may be new, but what is sent again
        changes nothing: clusters that a client holds as they are do not begin to warm (rules 41, 50).
        """
        claimed, self._claimed_version = self._claimed_version, ""
        if not claimed or self.type_url not in _WILDCARD_TYPES or claimed != snapshot.version(self.type_url):
            return
        resources = snapshot.resources(self.type_url)
        if resources:
            self._told = dict(self.subscription.select(resources))
            self._must_answer = bool(self.subscription.names) or not self.subscription.is_wildcard

    def _draft_all(self, snapshot: Snapshot, wanted: Mapping[str, XdsResource], hold: Hold) -> Draft | None:
        version: str = snapshot.version(self.type_url)
        if hold.removals and not self._is_set_rejected:
            # To leave a resource out is to remove it; until that may be it stays in, under that very set's version.
            kept = {name: resource for name, resource in self._told.items() if name not in wanted}
            if kept:
                wanted = {**wanted, **kept}
                version = digest_of(wanted)
        if not self._must_answer and (wanted == self._told or hold.updates):
            return None
        changed = {name for name, resource in wanted.items() if self._told.get(name) != resource}
        changed |= self._uncertain & wanted.keys()
        return Draft(version, tuple(wanted.values()), (), changed)

    def _draft_changes(self, snapshot: Snapshot, wanted: Mapping[str, XdsResource], hold: Hold) -> Draft | None:
        gone = [name for name in self._told if name not in wanted]
        for name in {*gone, *self._refused_with(gone)}:
            # Nothing says that it has gone in SotW, but if it comes back it is new.
            self._told.pop(name, None)
        self._forget_refusal_of(gone)
        changed = {name for name, resource in wanted.items() if self._told.get(name) != resource}
        changed |= self._refused_with(changed)
        if hold.updates:
            changed = {name for name in changed if name not in self._told}
        changed |= self.resend & wanted.keys()
        if not changed and not self._must_answer:
            return None
        resources = tuple(resource for name, resource in wanted.items() if name in changed)
        return Draft(snapshot.version(self.type_url), resources, (), changed)

    def _record(self, draft: Draft) -> None:
        if not self._is_partial:
            self._told = {resource.name: resource for resource in draft.resources}
        else:
            self._told.update((resource.name, resource) for resource in draft.resources)

    def send(self, draft: Draft, nonce: str, snapshot: Snapshot) -> None:
        super().send(draft, nonce, snapshot)
        self._nonce = nonce

    def _refuse(self, flight: Flight) -> None:
        if self._is_partial:
            super()._refuse(flight)
        else:
            # A full set is offered as a whole when anything in it changes.
            self._is_set_rejected = True
            self._uncertain.update(flight.draft.changed)
