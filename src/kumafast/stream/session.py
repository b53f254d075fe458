"""Decide what one Envoy must be sent next.

In: what the client last said (`Request`), the newest `Snapshot`. Out: a `Response` or None; what was taken or refused.
Never: sockets, clocks, asyncio. The order among types is here; the rules within a type are in `sotw.py` and `delta.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterable

from kumafast._core import NAMES_MAX
from kumafast.snapshot.collection import CollectionPointer
from kumafast.snapshot.resource import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LB_ENDPOINT,
    LISTENER,
    ROUTE,
    RUNTIME,
    SCOPED_ROUTE,
    SECRET,
    VIRTUAL_HOST,
)
from kumafast.snapshot.snapshot import Snapshot
from kumafast.stream.collections import Collections
from kumafast.stream.delta import DeltaSubstream
from kumafast.stream.messages import Event, ProtocolError, Rejected, Request, Response, Variant
from kumafast.stream.sotw import SotwSubstream
from kumafast.stream.substream import HOLD_REMOVALS, HOLD_UPDATES, NO_HOLD, Draft, Hold, Substream

# Make before break (rule 49): what is referred to goes before what refers to it. Types unknown here come last.
_ORDER = (CLUSTER, ENDPOINT, LB_ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, VIRTUAL_HOST, SECRET, RUNTIME, EXTENSION)
_RANK: dict[str, int] = {type_url: rank for rank, type_url in enumerate(_ORDER)}
# What leads traffic to clusters by their names.
_REFERRERS = (LISTENER, ROUTE, SCOPED_ROUTE, VIRTUAL_HOST)

TYPES_MAX = 64
_EPOCH_LENGTH = 12

Numbering = Callable[[str, Draft, int, bool], int]
"""The number of a response's nonce, from its type, its content, the last number of its stream, which is lower, and
whether it is the stream's own."""


def count_up(type_url: str, draft: Draft, last: int, is_own: bool) -> int:
    """Number the responses of one stream 1, 2, 3, …"""
    return last + 1


class Session:
    """One stream's side of the protocol. Call `respond` until it returns None after each request and each new snapshot.

    >>> from kumafast.snapshot import Snapshot, XdsResource
    >>> cluster = XdsResource("type.googleapis.com/envoy.config.cluster.v3.Cluster", "backend", b"")
    >>> session = Session(Variant.DELTA)
    >>> session.receive(Request(type_url=cluster.type_url, subscribe=["*"]))
    []
    >>> response = session.respond(Snapshot.of(cluster))
    >>> response.nonce, [resource.name for resource in response.resources]
    ('1', ['backend'])
    """

    def __init__(
        self,
        variant: Variant,
        type_url: str | None = None,
        *,
        number_response: Numbering = count_up,
        epoch: str | None = None,
        unfinished: Iterable[str] = (),
    ) -> None:
        """`type_url` is the one type of a per-type service; None means ADS.

        `epoch` is of no other stream, and part of the names that this one gives; without it one is made up.
        `unfinished` is what the client's last stream left so.
        """
        self.variant = variant
        self._type_url = type_url
        self._substreams: dict[str, Substream] = {}
        self._in_order: tuple[Substream, ...] = ()
        self._number_response = number_response
        self.last_number = 0
        """The number of the last nonce; they only grow, so that none comes twice."""
        # Clusters that were sent and whose endpoints have not been sent since. Envoy keeps a cluster that it is sent
        # anew warming until its ClusterLoadAssignment comes again, and does not ask for it (rule 50).
        self._warming: set[str] = set(unfinished)
        # Those whose endpoints have been sent since, which the client has not answered.
        self._landing: frozenset[str] = frozenset()
        self._epoch = epoch
        # Names that are this stream's alone, once it has given one.
        self._collections: Collections | None = None
        self.is_holding = False
        """Whether something waits for the client: `respond(…, is_patient=False)` sends it all the same."""

    def copy(self) -> Session:
        """Another session in the same state, which goes its own way from here."""
        twin = Session(self.variant, self._type_url, number_response=self._number_response, epoch=self._epoch)
        twin.last_number = self.last_number
        twin._warming, twin._landing = self._warming.copy(), self._landing
        twin._collections = None if self._collections is None else self._collections.copy()
        twin.is_holding = self.is_holding
        twin._substreams = {
            type_url: substream.copy(resend=twin._warming if type_url == ENDPOINT else None)
            for type_url, substream in self._substreams.items()
        }
        twin._in_order = tuple(twin._substreams[substream.type_url] for substream in self._in_order)
        return twin

    @property
    def is_own(self) -> bool:
        """Whether what it sends is for one client, once: a client that comes back may not be sent a name again."""
        return self._collections is not None

    @property
    def is_told_once(self) -> bool:
        """Whether a client that comes back is not sent what it holds, of clusters and endpoints alike.

        By names SotW sends everything anew (rule 22); of a service of one type no session knows both sides.
        """
        return self._type_url is None and self.variant is Variant.DELTA

    @property
    def unfinished(self) -> frozenset[str]:
        """Clusters that may be warming if the stream ends now, without a word of it when their client comes back.

        It says then that it holds the endpoints, in the version that is right, and waits for them all the same.
        """
        if not self.is_told_once:
            return frozenset()
        return self._landing.union(self._warming) if self._warming else self._landing

    def rest_key(self) -> Hashable | None:
        """What all sessions have in common that will answer alike from now on; None while anything is unsettled.

        It stands for what the client holds by the digests of the content for which nothing was due. The numbers of
        nonces are not part of it: a new one is above all that were sent.
        """
        if self.is_holding or self.is_own:
            return None
        keys = []
        for substream in self._in_order:
            key = None if substream.flight is not None else substream.rest_key()
            if key is None:
                return None
            keys.append(key)
        return (self.variant is Variant.SOTW, self._type_url, frozenset(self._warming), *keys)

    def receive(self, request: Request) -> list[Event]:
        """Take in one request. Raises `ProtocolError` where the stream cannot go on."""
        type_url = request.type_url
        if self._type_url is not None or not type_url:
            type_url = self._resolve(type_url)
        substream = self._substreams.get(type_url)
        if substream is None:
            substream = self._open(type_url)
        has_collections = type_url == LB_ENDPOINT and self.variant is Variant.DELTA
        if has_collections:
            request = (self._collections or Collections("")).read(request)
        event = substream.receive(request)
        if len(substream.subscription.names) > NAMES_MAX:
            raise ProtocolError(f"a stream may ask for at most {NAMES_MAX} names of a type")
        if event is None:
            return []
        if type_url == ENDPOINT:
            self._landing = frozenset()
        if has_collections and self._collections is not None:
            self._collections.land(is_rejected=isinstance(event, Rejected))
        if type_url == CLUSTER and isinstance(event, Rejected):
            # Which of them Envoy took is unknown: those whose endpoints it has asked for get them again, and nobody
            # needs to wait for the others.
            self._forget_unasked()
        return [event]

    def _forget_unasked(self) -> None:
        """Wait no longer for clusters whose endpoints, or their members, the client has not asked for."""
        endpoints = self._substreams.get(ENDPOINT)
        self._warming.intersection_update(
            [name for name in self._warming if endpoints is not None and name in endpoints.subscription]
        )
        if self._collections is not None:
            members, awaited = self._substreams.get(LB_ENDPOINT), self._collections.awaited
            awaited.intersection_update(
                [name for name in awaited if members is not None and name in members.subscription]
            )

    def _resolve(self, type_url: str) -> str:
        if self._type_url is not None:
            # A service of one type answers for it even where the request leaves it out (rule 3).
            if type_url not in ("", self._type_url):
                raise ProtocolError(f"this service serves {self._type_url}, not {type_url}")
            return self._type_url
        if not type_url:
            raise ProtocolError("a request on an aggregated stream must name its type_url")
        return type_url

    def _open(self, type_url: str) -> Substream:
        if len(self._substreams) >= TYPES_MAX:
            raise ProtocolError(f"a stream may ask for at most {TYPES_MAX} types")
        kind = DeltaSubstream if self.variant is Variant.DELTA else SotwSubstream
        substream = kind(type_url, resend=self._warming if type_url == ENDPOINT else None)
        self._substreams[type_url] = substream
        self._in_order = tuple(sorted(self._substreams.values(), key=lambda item: _RANK.get(item.type_url, len(_RANK))))
        return substream

    def respond(self, snapshot: Snapshot | None, *, is_patient: bool = True) -> Response | None:
        """The next response that is due, None where there is none now.

        While a node has no snapshot nothing is due: an early empty answer would empty a running proxy (rule 47).
        """
        self.is_holding = False
        if snapshot is None:
            return None
        for substream in self._in_order:
            if substream.flight is not None or (substream.quiet is snapshot and not substream.resend):
                continue
            if (draft := substream.due(snapshot)) is None:
                continue
            if is_patient and (hold := self._hold(substream, draft, snapshot)) is not NO_HOLD:
                substream.remember(snapshot, draft)
                draft = substream.due(snapshot, hold)
            if draft is None:
                self.is_holding = True
                continue
            return self._send(substream, draft, snapshot)
        if not is_patient:
            self._forget_unasked()
        return None

    def has_more(self, snapshot: Snapshot, *, is_patient: bool = True) -> bool:
        """Whether `respond` would return something now; if not, it has found out what is held back."""
        self.is_holding = False
        for substream in self._in_order:
            if substream.flight is not None or (substream.quiet is snapshot and not substream.resend):
                continue
            if (draft := substream.due(snapshot)) is None:
                continue
            substream.remember(snapshot, draft)
            if is_patient and (hold := self._hold(substream, draft, snapshot)) is not NO_HOLD:
                if substream.due(snapshot, hold) is not None:
                    return True
                self.is_holding = True
                continue
            return True
        return not is_patient

    def _send(self, substream: Substream, draft: Draft, snapshot: Snapshot) -> Response:
        named, type_url = draft, substream.type_url
        if type_url in (ENDPOINT, LB_ENDPOINT) and self.variant is Variant.DELTA:
            named = self._with_collections(type_url, draft)
        self.last_number = self._number_response(type_url, named, self.last_number, named is not draft)
        nonce = str(self.last_number)
        cold = frozenset(self._warming) if type_url == ENDPOINT and self._warming else None
        substream.send(draft, nonce, snapshot)
        if cold is not None:
            self._landing = cold - self._warming
        if type_url == CLUSTER:
            endpoints = snapshot.resources(ENDPOINT)
            if draft.removed:
                self._warming.difference_update(draft.removed)
            self._warming.update([name for name in draft.changed if name in endpoints])
        return Response(type_url, draft.version, nonce, named.resources, named.removed)

    def _with_collections(self, type_url: str, draft: Draft) -> Draft:
        """A draft with the names of collections that this client is given."""
        if type_url == LB_ENDPOINT:
            if self._collections is None:
                return draft
            resources, removed = self._collections.expand(draft.resources, draft.removed)
            return draft._replace(resources=resources, removed=removed)
        pointers = [resource for resource in draft.resources if isinstance(resource, CollectionPointer)]
        if not pointers:
            return draft
        if self._collections is None:
            self._collections = Collections(self._epoch or uuid.uuid4().hex[:_EPOCH_LENGTH])
        members = self._substreams.get(LB_ENDPOINT)
        if members is not None:
            # The client knows them by other names from now on, and asks anew.
            pointed = [name for pointer in pointers for name in pointer.collections]
            members.receive(Request(type_url=LB_ENDPOINT, unsubscribe=pointed))
        return draft._replace(resources=self._collections.point(draft.resources))

    def _hold(self, substream: Substream, draft: Draft, snapshot: Snapshot) -> Hold:
        """What of a type's draft has to wait, for a client that behaves like Envoy."""
        if self._type_url is not None:
            return NO_HOLD
        type_url = substream.type_url
        if type_url in _REFERRERS:
            return HOLD_UPDATES if substream.is_update and self._are_clusters_cold(snapshot) else NO_HOLD
        if type_url not in (CLUSTER, ENDPOINT) or (self.variant is Variant.DELTA and not draft.removed):
            # In SotW it is the substream that knows what a draft takes away.
            return NO_HOLD
        others = _REFERRERS if type_url == CLUSTER else (*_REFERRERS, CLUSTER)
        return HOLD_REMOVALS if any(self._is_behind(other, snapshot) for other in others) else NO_HOLD

    def _are_clusters_cold(self, snapshot: Snapshot) -> bool:
        """Whether a listener sent now could lead to a cluster that Envoy does not have ready."""
        clusters = self._substreams.get(CLUSTER)
        if clusters is not None and clusters.flight is not None:
            return True
        endpoints = self._substreams.get(ENDPOINT)
        if endpoints is None or not endpoints.subscription:
            return False
        if self._warming:
            there = snapshot.resources(ENDPOINT)
            if any(name in there for name in self._warming):
                return True
        return self.awaits_members(snapshot)

    def awaits_members(self, snapshot: Snapshot) -> bool:
        """Whether a cluster that was pointed to a collection has not been sent its members."""
        if self._collections is None:
            return False
        there = snapshot.resources(LB_ENDPOINT)
        return any(name in there for name in self._collections.awaited)

    def _is_behind(self, type_url: str, snapshot: Snapshot) -> bool:
        """Whether resources of a type may still lead to what is to be removed."""
        substream = self._substreams.get(type_url)
        return substream is not None and (substream.flight is not None or substream.due(snapshot) is not None)

    @property
    def has_landed(self) -> bool:
        """Whether the client has answered, and taken, all that it was sent."""
        for substream in self._in_order:
            if substream.flight is not None or substream.is_rejected:
                return False
        return bool(self._in_order)

    def is_synced(self, snapshot: Snapshot) -> bool:
        """Whether the client holds, and has taken, all that this snapshot has of the types that it asked for."""
        return (
            self.has_landed
            and all(substream.due(snapshot) is None for substream in self._in_order)
            and not self.awaits_members(snapshot)
        )
