"""What a stream leaves unfinished is there for its client's next stream: once, for a while, for so many."""

from __future__ import annotations

import asyncio

from tests.stream.memory_client import MemoryClient

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT
from kumafast.stream import XdsServer
from kumafast.stream.unfinished import KEPT_MAX, KEPT_S, Unfinished


def test_what_is_left_is_taken_once_and_the_newest_counts() -> None:
    unfinished = Unfinished()
    unfinished.note("a", frozenset({"one"}))
    unfinished.note("a", frozenset({"two"}))
    assert len(unfinished) == 1
    assert unfinished.take("b") == frozenset()
    assert unfinished.take("a") == {"two"}
    assert unfinished.take("a") == frozenset()


def test_nothing_is_kept_for_longer_than_a_client_waits() -> None:
    now = 0.0
    unfinished = Unfinished(clock=lambda: now)
    unfinished.note("early", frozenset({"x"}))
    unfinished.note("late", frozenset({"x"}))
    now = KEPT_S + 1
    assert unfinished.take("early") == frozenset()
    unfinished.note("new", frozenset({"x"}))
    assert len(unfinished) == 1


def test_no_more_are_kept_than_there_is_room_for() -> None:
    unfinished = Unfinished()
    for number in range(KEPT_MAX + 10):
        unfinished.note(str(number), frozenset({"x"}))
    assert len(unfinished) == KEPT_MAX
    assert unfinished.take("9") == frozenset()
    assert unfinished.take("10") == {"x"}


def snapshot_of(version: int) -> Snapshot:
    return Snapshot.of(XdsResource(CLUSTER, "c", b"%d" % version), XdsResource(ENDPOINT, "c", b""))


async def _warm(server: XdsServer) -> tuple[MemoryClient, dict[str, dict[str, str]]]:
    """A client that holds a cluster and its endpoints, and their versions."""
    client = MemoryClient(server)
    held: dict[str, dict[str, str]] = {}
    for type_url, names in ((CLUSTER, []), (ENDPOINT, ["c"])):
        client.ask(type_url, resource_names_subscribe=names)
        response = await client.hear()
        client.ask(type_url, response_nonce=response.nonce)
        held[type_url] = {each.name: each.version for each in response.resources}
    return client, held


def _come_back(server: XdsServer, held: dict[str, dict[str, str]]) -> MemoryClient:
    client = MemoryClient(server)
    client.ask(CLUSTER, initial_resource_versions=held[CLUSTER])
    client.ask(ENDPOINT, resource_names_subscribe=["c"], initial_resource_versions=held[ENDPOINT])
    return client


def test_endpoints_come_again_after_a_cut_in_the_middle_and_only_then() -> None:
    """The cut comes after the cluster's response, after the endpoints', and after the acknowledgement of those."""

    async def main() -> None:
        for heard in range(3):
            cache = SnapshotCache()
            cache.set("n", snapshot_of(1))
            server = XdsServer(cache)
            client, held = await _warm(server)
            cache.set("n", snapshot_of(2))
            response = await client.hear()
            assert response.type_url == CLUSTER
            held[CLUSTER] = {each.name: each.version for each in response.resources}
            if heard:
                response = await client.hear()
                assert response.type_url == ENDPOINT
            if heard == 2:
                client.ask(ENDPOINT, response_nonce=response.nonce)
            client.lose()
            client = _come_back(server, held)
            if heard < 2:
                response = await client.hear()
                assert (response.type_url, [each.name for each in response.resources]) == (ENDPOINT, ["c"])
                client.ask(ENDPOINT, response_nonce=response.nonce)
            await asyncio.sleep(0.01)
            assert client.is_silent
            # Once that is settled nobody is sent it again.
            client.lose()
            client = _come_back(server, held)
            await asyncio.sleep(0.01)
            assert client.is_silent

    asyncio.run(main())
