"""Standings: who shares one, what is remembered from it, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from tests.stream.test_stream_model import snapshot_of

from kumafast._core import Standing
from kumafast.snapshot import Snapshot, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.stream import wire
from kumafast.stream.messages import ProtocolError, Request, Variant
from kumafast.stream.session import Session
from kumafast.stream.standings import PAYLOAD_BYTES_KEPT_MAX, RESOURCES_COMPARED_MAX, Standings, decode


def goal_of(version: str) -> Snapshot:
    return snapshot_of({CLUSTER: {"a": version}, ENDPOINT: {"a": version}, LISTENER: {"l": version}})


def at_rest(session: Session, goal: Snapshot, *requests: Request) -> Session:
    """A session that has said this, and taken all that it was sent."""
    for request in requests:
        session.receive(request)
        while (response := session.respond(goal)) is not None:
            names = ["a"] if response.type_url == ENDPOINT else []
            names = names if session.variant is Variant.SOTW else []
            session.receive(Request(type_url=response.type_url, nonce=response.nonce, names=names))
    return session


def test_sessions_that_hold_and_ask_for_the_same_are_one() -> None:
    goal = goal_of("1")
    clusters, listeners = Request(type_url=CLUSTER), Request(type_url=LISTENER)
    one = at_rest(Session(Variant.DELTA), goal, clusters, listeners)
    other = at_rest(Session(Variant.DELTA), goal_of("0"), listeners, clusters)
    assert other.rest_key() != one.rest_key(), "it holds something else"
    at_rest(other, goal, clusters)
    assert other.rest_key() == one.rest_key()
    other.receive(Request(type_url=LISTENER, subscribe=["l"]))
    assert other.rest_key() is None, "an answer is owed"
    at_rest(other, goal)
    assert at_rest(other, goal, Request(type_url=LISTENER)).rest_key() != one.rest_key(), "it asks for a name too"


def test_last_nonce_of_sotw_and_warming_clusters_tell_sessions_apart() -> None:
    goal = goal_of("1")
    listeners = Request(type_url=LISTENER)
    one, other = (at_rest(Session(Variant.SOTW), goal, listeners) for _ in range(2))
    assert one.rest_key() == other.rest_key()
    # A request with the nonce before is stale to the one that got another response since (rule 13).
    other = at_rest(at_rest(other, goal_of("2"), listeners), goal, listeners)
    assert one.rest_key() != other.rest_key()
    # Without endpoints asked for, what was sent last decides what goes out with them.
    cold, warm = Session(Variant.DELTA), Session(Variant.DELTA)
    at_rest(cold, goal, Request(type_url=CLUSTER))
    at_rest(warm, snapshot_of({CLUSTER: {"a": "1"}}), Request(type_url=CLUSTER))
    at_rest(warm, goal)
    warm.respond(goal)
    assert cold.rest_key() != warm.rest_key()


def test_copy_goes_its_own_way() -> None:
    for variant in Variant:
        for error in (None, "no"):
            session = Session(variant)
            session.receive(Request(type_url=CLUSTER))
            response = session.respond(goal_of("1"))
            assert response is not None
            twin = session.copy()
            twin.receive(Request(type_url=CLUSTER, nonce=response.nonce, error=error))
            sent = twin.respond(goal_of("2"))
            assert sent is not None
            assert session.respond(goal_of("2")) is None, "its response is still in flight"
            session.receive(Request(type_url=CLUSTER, nonce=response.nonce, error=error))
            assert session.respond(goal_of("2")) == sent


def test_same_response_is_encoded_once_and_never_sent_twice_with_one_nonce() -> None:
    standings = Standings(instance_id="i")
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER).SerializeToString()
    # Two nodes with listeners of their own and the same clusters.
    goals = [snapshot_of({CLUSTER: {"a": "1"}, LISTENER: {"l": version}}) for version in "12"]
    moves = [standings.compute(standings.origin(Variant.DELTA, None), request, goal, True) for goal in goals]
    assert moves[0].payload is moves[1].payload is not None
    # There and back again: the first response is due to the same stream once more.
    other = snapshot_of({CLUSTER: {"a": "2"}, LISTENER: {"l": "1"}})
    session: Session = moves[0].after.session
    nonces = [session.last_number]
    for goal in (other, goals[0], other):
        session.receive(Request(type_url=CLUSTER, nonce=str(session.last_number)))
        assert session.respond(goal) is not None
        nonces.append(session.last_number)
    assert nonces == sorted(set(nonces))
    # What is large is not looked for.
    large = snapshot_of({CLUSTER: {str(at): "1" for at in range(RESOURCES_COMPARED_MAX + 1)}})
    first, second = (standings.compute(standings.origin(Variant.DELTA, None), request, large, True) for _ in range(2))
    assert first.payload is not second.payload


def test_what_is_large_is_encoded_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty clients that ask for four megabytes at a time cost the encoding of four, not of eighty."""
    encoded: list[int] = []
    encode = wire.encode

    def count(*what: Any, **named: Any) -> bytes:
        data = encode(*what, **named)
        encoded.append(len(data))
        return data

    monkeypatch.setattr(wire, "encode", count)
    standings = Standings(instance_id="kumafast")
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER).SerializeToString()
    origin = standings.origin(Variant.DELTA, None)
    for at in range(3):
        goal = Snapshot.of(XdsResource(CLUSTER, "c", bytes([at]) * (4 << 20)))
        moves = [standings.compute(origin, request, goal, True) for _ in range(20)]
        assert len({id(move.payload) for move in moves}) == 1
        assert len(encoded) == at + 1
    # What came long ago makes room.
    assert standings._encoded._bytes == sum(encoded) < PAYLOAD_BYTES_KEPT_MAX
    for at in range(3, 7):
        goal = Snapshot.of(XdsResource(CLUSTER, "c", bytes([at]) * (4 << 20)))
        standings.compute(origin, request, goal, True)
    assert PAYLOAD_BYTES_KEPT_MAX / 2 < standings._encoded._bytes <= PAYLOAD_BYTES_KEPT_MAX
    assert PAYLOAD_BYTES_KEPT_MAX / 2 < standings._numbered._bytes <= PAYLOAD_BYTES_KEPT_MAX


def test_standing_of_one_stream_is_changed_in_place_and_one_of_many_is_not() -> None:
    standings = Standings(instance_id="i")
    session = at_rest(Session(Variant.DELTA), goal_of("1"), Request(type_url=CLUSTER))
    private, shared = Standing(session), Standing(session.copy(), is_origin=True)
    assert standings.compute(private, None, goal_of("2"), True).after is private
    assert private.session is session
    before = shared.session
    assert standings.compute(shared, None, goal_of("2"), True).after.session is not before
    assert shared.session is before


def test_requests_are_read_alike_with_their_nonces_cut_out() -> None:
    def request(nonce: str, **fields: Any) -> bytes:
        message = discovery_pb2.DeltaDiscoveryRequest(response_nonce=nonce, **fields)
        return bytes(message.SerializeToString())

    plain = request("7", type_url=CLUSTER)
    asking = request("8", type_url=ENDPOINT, resource_names_subscribe=["a"], resource_names_unsubscribe=["b"])
    refusing = request("9", type_url=CLUSTER, error_detail={"message": "no"})
    held = request("", type_url=CLUSTER, initial_resource_versions={"a": "1"})
    twice = request("1") + plain
    for data in (plain, asking, refusing, held, twice, plain + request("10"), request("x"), request("1" * 20), b""):
        for _ in range(2):
            assert decode(data, Variant.DELTA) == wire.decode(data, Variant.DELTA)
    for data in (plain + b"\x0a", plain + request("1")[:-1], request("12").replace(b"12", b"\xff2")):
        with pytest.raises(ProtocolError):
            decode(data, Variant.DELTA)
