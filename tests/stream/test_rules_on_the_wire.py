"""Rules of the protocol that show only on a real connection, or in the bytes of a response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest
import uvloop
from envoy.service.discovery.v3 import discovery_pb2
from tests.stream.grpc_client import ADS, cluster, connect, open_stream, serve

from kumafast._core import NAMES_MAX
from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot import resource as types
from kumafast.stream import XdsServer

VARIANTS = {"delta": ADS + "DeltaAggregatedResources", "sotw": ADS + "StreamAggregatedResources"}
each_variant = pytest.mark.parametrize("method", VARIANTS.values(), ids=VARIANTS)


def run(main: Callable[[SnapshotCache, XdsServer, int, grpc.aio.Channel], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        cache = SnapshotCache()
        async with asyncio.timeout(60), serve(cache) as (server, port), connect(port) as channel:
            await main(cache, server, port, channel)

    uvloop.run(bounded())


def test_types_that_are_delta_only_have_no_other_service() -> None:
    """Virtual hosts and single endpoints are served in delta alone (rule 1)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        for method in (
            "route.v3.VirtualHostDiscoveryService/StreamVirtualHosts",
            "endpoint.v3.LocalityEndpointDiscoveryService/StreamLocalityEndpoints",
        ):
            stream = open_stream(channel, f"/envoy.service.{method}")
            assert await stream.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main)


@each_variant
def test_client_that_nobody_knows_waits(method: str) -> None:
    """Without a node, or with an unknown one, there is silence until there is something to say (rules 2, 47)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        nameless, unknown = open_stream(channel, method), open_stream(channel, method, node_id="unknown")
        nameless._node_id = None
        for stream in (nameless, unknown):
            await stream.write()
        cache.set("n", Snapshot.of(cluster("of-another")))
        await asyncio.sleep(0.05)
        assert server.stream_count == 2
        for key, size in (("*", 1001), ("unknown", 2002)):
            cache.set(key, Snapshot.of(cluster("a", size)))
        for stream, size in ((nameless, 1001), (unknown, 2002)):
            (resource,) = (await stream.read()).resources
            assert len(resource.resource.value if stream.is_delta else resource.value) == size

    run(main)


def test_hundreds_of_streams_share_a_connection() -> None:
    """Each stream of one connection is answered, has its changes and its own nonces (rules 6, 8)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        streams = [open_stream(channel, node_id=f"n-{number}") for number in range(300)]
        for number, stream in enumerate(streams):
            cache.set(f"n-{number}", Snapshot.of(cluster(f"a-{number}")))
            await stream.write()
        for number, stream in enumerate(streams):
            response = await stream.read()
            assert [item.name for item in response.resources] == [f"a-{number}"]
            await stream.write(response_nonce=response.nonce)
        for number, stream in enumerate(streams):
            cache.set(f"n-{number}", Snapshot.of(cluster(f"a-{number}"), cluster(f"b-{number}")))
            response = await stream.read()
            assert [item.name for item in response.resources] == [f"b-{number}"]
        assert server.stream_count == len(streams)

    run(main)


@each_variant
def test_what_a_response_says_beside_its_resources(method: str) -> None:
    """The type's version and name, versions of resources, no time to live and no wrapper around any (rules 3, 20, 53).

    Nothing that kumafast serves has a time to live, so nothing needs a heartbeat, whatever the client could take.
    """

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        snapshot = Snapshot.of(cluster("a"), cluster("b", 2))
        cache.set("n", snapshot)
        stream = open_stream(channel, method)
        kind = discovery_pb2.DeltaDiscoveryRequest if stream.is_delta else discovery_pb2.DiscoveryRequest
        request = kind(type_url=types.CLUSTER)
        request.node.id = "n"
        request.node.client_features.append("xds.config.supports-resource-in-sotw")
        await stream.write_bytes(request.SerializeToString())
        response = await stream.read()
        assert response.type_url == types.CLUSTER
        assert response.nonce
        if stream.is_delta:
            assert response.system_version_info == snapshot.version(types.CLUSTER)
            assert {item.name: item.version for item in response.resources} == snapshot.resource_versions(types.CLUSTER)
            assert not any(item.HasField("ttl") for item in response.resources)
            packed = [item.resource for item in response.resources]
        else:
            assert response.version_info == snapshot.version(types.CLUSTER)
            packed = list(response.resources)
        assert [item.type_url for item in packed] == [types.CLUSTER] * 2

    run(main)


@each_variant
def test_others_change_and_equal_content_are_silent(method: str) -> None:
    """Neither another node's data, nor another type's, nor the same content set again is told (rule 41)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        cache.set("n", Snapshot.of(cluster("a")))
        stream = open_stream(channel, method)
        await stream.write()
        response = await stream.read()
        await stream.write(response_nonce=response.nonce)
        for number in range(5):
            cache.set("other", Snapshot.of(cluster("a", number + 2)))
            cache.set("n", Snapshot.of(cluster("a"), XdsResource(types.LISTENER, "l", b"%d" % number)))
            cache.set("n", Snapshot.of(cluster("a")))
            await asyncio.sleep(0.01)
        # A request that says nothing new is no reason either.
        await stream.write(response_nonce=response.nonce)
        assert await stream.is_silent(0.2)

    run(main)


@each_variant
def test_odd_requests_are_taken_as_they_are(method: str) -> None:
    """Nearly as many names as there may be, empty ones, some twice, fields that nobody knows (rules 34, 55)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        names = ["", "a b/c", "ä", *(f"name-{number}" for number in range(NAMES_MAX - 6))]
        cache.set("n", Snapshot.of(*(XdsResource(types.ENDPOINT, name, b"x") for name in names[:3])))
        stream = open_stream(channel, method)
        kind = discovery_pb2.DeltaDiscoveryRequest if stream.is_delta else discovery_pb2.DiscoveryRequest
        request = kind(type_url=types.ENDPOINT)
        request.node.id = "n"
        field = request.resource_names_subscribe if stream.is_delta else request.resource_names
        field.extend([*names, *names[:3]])
        # Field 1000, a varint.
        await stream.write_bytes(request.SerializeToString() + b"\xc0\x3e\x07")
        response = await stream.read()
        assert len(response.resources) == 3
        if stream.is_delta:
            assert {item.name for item in response.resources} == set(names[:3])
            assert len(response.removed_resources) == NAMES_MAX - 6

    run(main)


@each_variant
def test_a_hundred_thousand_names_end_their_own_stream_only(method: str) -> None:
    """To look them all up and answer would hold up everybody else (rule 55)."""

    async def main(cache: SnapshotCache, server: XdsServer, port: int, channel: grpc.aio.Channel) -> None:
        cache.set("n", Snapshot.of(XdsResource(types.ENDPOINT, "a", b"x")))
        stream, other = open_stream(channel, method), open_stream(channel, method)
        kind = discovery_pb2.DeltaDiscoveryRequest if stream.is_delta else discovery_pb2.DiscoveryRequest
        for asking, names in ((stream, [f"name-{number}" for number in range(100_000)]), (other, ["a"])):
            request = kind(type_url=types.ENDPOINT)
            request.node.id = "n"
            field = request.resource_names_subscribe if asking.is_delta else request.resource_names
            field.extend(names)
            await asking.write_bytes(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len((await other.read()).resources) == 1

    run(main)
