"""Where the streams of a server stand, so that those that stand together share what is worked out for one of them.

In: a standing with a request, a goal, or both. Out: the `Move` from there: at most one payload, and the next standing.
Never: rules of the protocol, which the `Session` of a standing has; streams, sockets, clocks, asyncio.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Generic, TypeVar
from weakref import WeakSet, WeakValueDictionary

from kumafast._core import Move, Payload, Standing, cut_field
from kumafast.snapshot.resource import SECRET, XdsResource
from kumafast.snapshot.snapshot import Snapshot
from kumafast.stream import wire
from kumafast.stream.messages import Acknowledged, Event, Rejected, Request, Response, Sent, Variant
from kumafast.stream.session import Session
from kumafast.stream.substream import Draft

PAYLOADS_MAX = 256
RESOURCES_COMPARED_MAX = 16
"""Responses of more resources are not looked for: to compare them costs what encoding them does."""
PAYLOAD_BYTES_KEPT_MAX = 16 << 20
"""Of all payloads, and of all bodies, that are kept for other streams; a larger one is not."""
_REQUEST_BYTES_KEPT_MAX = 1024
_DIGITS_MAX = 19

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Recent(Generic[_Key, _Value]):
    """The newest values, as many as there is room for."""

    def __init__(self) -> None:
        self._values: OrderedDict[_Key, tuple[_Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: _Key) -> _Value | None:
        found = self._values.get(key)
        return None if found is None else found[0]

    def add(self, key: _Key, value: _Value, size: int) -> None:
        """Keep a value of so many bytes, and let the oldest go for it."""
        if size > PAYLOAD_BYTES_KEPT_MAX:
            return
        _, replaced = self._values.pop(key, (None, 0))
        self._values[key] = (value, size)
        self._bytes += size - replaced
        while len(self._values) > PAYLOADS_MAX or self._bytes > PAYLOAD_BYTES_KEPT_MAX:
            _, (_, freed) = self._values.popitem(last=False)
            self._bytes -= freed


class Standings:
    """The standings of one server, its origins among them, and the payloads that several may need.

    >>> from kumafast.snapshot import XdsResource
    >>> standings = Standings(instance_id="kumafast")
    >>> cluster = XdsResource("type.googleapis.com/envoy.config.cluster.v3.Cluster", "backend", b"")
    >>> request = wire.discovery_pb2.DeltaDiscoveryRequest(type_url=cluster.type_url).SerializeToString()
    >>> move = standings.compute(standings.origin(Variant.DELTA, None), request, Snapshot.of(cluster), True)
    >>> len(move.payload) > 0, move.after.session.is_synced(Snapshot.of(cluster))
    (True, False)
    """

    def __init__(self, *, instance_id: str) -> None:
        self._instance_id = instance_id
        self._origins: dict[tuple[Variant, str | None], Standing] = {}
        self._at_rest: MutableMapping[Hashable, Standing] = WeakValueDictionary()
        self._goals: MutableMapping[Hashable, Snapshot] = WeakValueDictionary()
        # Goals of several streams: those of one rest alone, for nobody could come to stand with them.
        self._shared: WeakSet[Snapshot] = WeakSet()
        # Nonces of all streams are numbered together, so that one payload has one.
        self._numbers = count(1)
        # The number that a response had, and what it was encoded to.
        self._numbered: _Recent[Hashable, tuple[int, tuple[XdsResource, ...], tuple[str, ...]]] = _Recent()
        self._encoded: _Recent[tuple[bool, str], Payload] = _Recent()
        # A request that was read before it counts, which may have taken many turns.
        self._read: tuple[bytes, Request] | None = None

    def origin(self, variant: Variant, type_url: str | None) -> Standing:
        """Where streams of a service begin."""
        found = self._origins.get((variant, type_url))
        if found is None:
            session = Session(variant, type_url, number_response=self._number)
            found = self._origins[variant, type_url] = Standing(session, is_origin=True)
        return found

    def comeback(self, unfinished: frozenset[str]) -> Standing:
        """Where an aggregated delta stream begins whose client's last one left these clusters `unfinished`."""
        return Standing(Session(Variant.DELTA, number_response=self._number, unfinished=unfinished))

    def goal(self, snapshot: Snapshot | None) -> Snapshot | None:
        """The one snapshot that stands for all with its content and its versions' names."""
        if snapshot is None:
            return None
        found = self._goals.setdefault(snapshot.content_key(), snapshot)
        if found is not snapshot:
            self._shared.add(found)
        return found

    def share(self, goal: Snapshot) -> None:
        """Take note that several streams have a goal."""
        self._shared.add(goal)

    @contextmanager
    def has_read(self, data: bytes, request: Request) -> Iterator[None]:
        """Within this, those very bytes are that request."""
        self._read = (data, request)
        try:
            yield
        finally:
            self._read = None

    def decode(self, data: bytes, variant: Variant) -> Request:
        """A request without its node. Raises `ProtocolError` for bytes that are not one."""
        if self._read is not None and self._read[0] is data:
            return self._read[1]
        return decode(data, variant)

    def compute(self, standing: Standing, request: bytes | None, goal: Snapshot | None, is_patient: bool) -> Move:
        """The move from a standing: first the request is taken in, then at most one response is sent.

        Raises `ProtocolError` where the stream cannot go on.
        """
        session, place = self._take(standing)
        told: tuple[Event | Sent, ...] = ()
        acknowledged = rejected = 0
        if request is not None:
            told = tuple(session.receive(self.decode(request, session.variant)))
            for event in told:
                acknowledged += isinstance(event, Acknowledged)
                rejected += isinstance(event, Rejected)
        response = session.respond(goal, is_patient=is_patient)
        if response is not None:
            payload = self._encode(response, session.variant)
            told += (Sent(response.type_url, response.version, len(payload)),)
            is_last = goal is not None and not session.has_more(goal, is_patient=is_patient)
            return Move(
                _stand(session, place),
                payload=payload,
                events=told,
                acknowledged=acknowledged,
                rejected=rejected,
                is_last=is_last,
                is_holding=is_last and session.is_holding,
                is_own=session.is_own,
            )
        if goal is None or (place is not None and goal not in self._shared):
            after = _stand(session, place)
        else:
            after = self._rest(session, place)
        # Nothing is due of the goal but what is held back.
        is_synced = (
            goal is not None and not session.is_holding and session.has_landed and not session.awaits_members(goal)
        )
        return Move(
            after,
            events=told,
            acknowledged=acknowledged,
            rejected=rejected,
            is_synced=is_synced,
            is_holding=session.is_holding,
            is_own=session.is_own,
        )

    def _take(self, standing: Standing) -> tuple[Session, Standing | None]:
        """A session that may be changed, and where it may stand: a copy, unless nobody needs the standing any more."""
        session: Session = standing.session
        if not standing.is_private:
            return session.copy(), None
        standing.session = None
        # What is known from here is known of what the session was.
        standing.forget_moves()
        if standing.key is None:
            return session, standing
        self._at_rest.pop(standing.key, None)
        return session, None

    def _rest(self, session: Session, place: Standing | None) -> Standing:
        """The standing of a session for which nothing is due."""
        key = session.rest_key()
        if key is None:
            return _stand(session, place)
        found = self._at_rest.get(key)
        if found is None:
            found = self._at_rest[key] = Standing(session, key=key)
        elif session.last_number > found.session.last_number:
            # A move that is known from here may send what this stream was sent already.
            found.session.last_number = session.last_number
            found.forget_moves()
        return found

    def _number(self, type_url: str, draft: Draft, last: int, is_own: bool) -> int:
        """The number that the same response to another stream had, if it is new to this one; else the next.

        What is a stream's own has a number of its own: equal versions do not mean equal bytes there.
        """
        if is_own or type_url == SECRET:
            return next(self._numbers)
        resources, removed = tuple(draft.resources), tuple(draft.removed)
        # The resources are compared below: to hash all of them would cost more than the rest of it.
        key = (type_url, draft.version, len(resources), resources[-1].version if resources else None)
        found = self._numbered.get(key)
        if found is not None and found[0] > last and found[1] == resources and found[2] == removed:
            return found[0]
        number = next(self._numbers)
        if len(resources) <= RESOURCES_COMPARED_MAX and len(removed) <= RESOURCES_COMPARED_MAX:
            size = sum([len(resource.body) for resource in resources])
            self._numbered.add(key, (number, resources, removed), size)
        return number

    def _encode(self, response: Response, variant: Variant) -> Payload:
        if response.type_url == SECRET:
            # Nobody else is sent it, and no private key is kept beyond its stream.
            return Payload(wire.encode(response, variant, instance_id=self._instance_id))
        key = (variant is Variant.SOTW, response.nonce)
        payload = self._encoded.get(key)
        if payload is None:
            payload = Payload(wire.encode(response, variant, instance_id=self._instance_id))
            self._encoded.add(key, payload, len(payload))
        return payload


def _stand(session: Session, place: Standing | None) -> Standing:
    """Where a session stands alone: where it did, if it can."""
    if place is None:
        return Standing(session)
    place.session = session
    return place


def decode(data: bytes, variant: Variant) -> Request:
    """A request without its node. Raises `ProtocolError` for bytes that are not one."""
    if len(data) > _REQUEST_BYTES_KEPT_MAX:
        return wire.decode(data, variant)
    if variant is Variant.DELTA:
        # Acknowledgements of one type differ in their nonces only, and ours are short and decimal.
        nonce, rest = cut_field(data, wire.DELTA_NONCE_FIELD)
        if nonce is not None and len(nonce) <= _DIGITS_MAX and nonce.isdigit():
            request = _decode_again(rest, False)
            # A field that comes twice counts as it came last.
            if not request.nonce:
                return Request(*request[:-2], nonce.decode("ascii"), request.error)
    return _decode_again(data, variant is Variant.SOTW)


@lru_cache(1024)
def _decode_again(data: bytes, is_sotw: bool) -> Request:
    """Many clients send the very same bytes, and the first request of a stream is read before it counts."""
    return wire.decode(data, Variant.SOTW if is_sotw else Variant.DELTA)
