"""The server on real sockets, with grpcio as the client: variants, services, errors, ends of streams."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource as limits
import time
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest
import uvloop
from tests.stream.grpc_client import ADS, Recorder, cluster, connect, open_stream, serve

from kumafast._core import Stream
from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot import resource as types
from kumafast.stream import XdsServer

SERVICES = {
    "cluster.v3.ClusterDiscoveryService/{}Clusters": types.CLUSTER,
    "endpoint.v3.EndpointDiscoveryService/{}Endpoints": types.ENDPOINT,
    "listener.v3.ListenerDiscoveryService/{}Listeners": types.LISTENER,
    "route.v3.RouteDiscoveryService/{}Routes": types.ROUTE,
    "route.v3.ScopedRoutesDiscoveryService/{}ScopedRoutes": types.SCOPED_ROUTE,
    "secret.v3.SecretDiscoveryService/{}Secrets": types.SECRET,
    "runtime.v3.RuntimeDiscoveryService/{}Runtime": types.RUNTIME,
    "extension.v3.ExtensionConfigDiscoveryService/{}ExtensionConfigs": types.EXTENSION,
}
METHODS = [
    (service.format(variant), type_url) for service, type_url in SERVICES.items() for variant in ("Stream", "Delta")
] + [
    ("route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts", types.VIRTUAL_HOST),
    ("endpoint.v3.LocalityEndpointDiscoveryService/DeltaLocalityEndpoints", types.LB_ENDPOINT),
]


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main

    uvloop.run(bounded())


def test_every_service_of_one_type_answers_for_it() -> None:
    """Both variants of each, with the type's name, whether the request names it or not (rules 1, 3)."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(*(XdsResource(type_url, "a", b"x") for _, type_url in METHODS)))
        async with serve(cache) as (_, port), connect(port) as channel:
            for method, type_url in METHODS:
                stream = open_stream(channel, f"/envoy.service.{method}")
                if stream.is_delta:
                    await stream.write(type_url="", resource_names_subscribe=["a"])
                else:
                    await stream.write(type_url="", resource_names=["a"])
                response = await stream.read()
                assert response.type_url == type_url
                assert response.control_plane.identifier == "kumafast"
                found = response.resources[0].resource if stream.is_delta else response.resources[0]
                assert (found.type_url, found.value) == (type_url, b"x")
                stream.call.cancel()

    run(main())


def test_sotw_and_delta_aggregated_with_all_that_is_observed() -> None:
    """What was sent, taken and refused, and why, is told; the first request's node counts (rules 2, 8, 16)."""

    """What was sent, taken and refused is told, with the reason (rule 16); only the first node counts (rule 2)."""

    async def main() -> None:
        cache, recorder = SnapshotCache(), Recorder()
        first, second = Snapshot.of(cluster("a")), Snapshot.of(cluster("a", 2))
        cache.set("n", first)
        cache.set("m", Snapshot.of(cluster("of-somebody-else")))
        async with serve(cache, observer=recorder) as (_, port), connect(port) as channel:
            for method in ("DeltaAggregatedResources", "StreamAggregatedResources"):
                cache.set("n", first)
                recorder.events.clear()
                stream = open_stream(channel, ADS + method)
                await stream.write()
                one = await stream.read()
                stream._node_id = "m"
                await stream.write(response_nonce=one.nonce)
                cache.set("n", second)
                two = await stream.read()
                assert one.nonce != two.nonce
                await stream.write(response_nonce=two.nonce, error="no such thing")
                await stream.call.done_writing()
                with pytest.raises(EOFError):
                    await stream.read()
                assert await stream.code() is grpc.StatusCode.OK
                versions = [snapshot.version(types.CLUSTER) for snapshot in (first, second)]
                assert recorder.events == [
                    ("opened", "n"),
                    ("sent", types.CLUSTER, versions[0], one.ByteSize()),
                    ("acknowledged", types.CLUSTER, versions[0]),
                    *([("synced", first)] if ("synced", first) in recorder.events else []),
                    ("sent", types.CLUSTER, versions[1], two.ByteSize()),
                    ("rejected", types.CLUSTER, versions[1], "no such thing"),
                    ("closed",),
                ]

    run(main())


def test_client_without_a_node_is_served_the_default() -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("*", Snapshot.of(cluster("default")))
        async with serve(cache) as (_, port), connect(port) as channel:
            stream = open_stream(channel)
            stream._node_id = None
            await stream.write()
            assert [resource.name for resource in (await stream.read()).resources] == ["default"]

    run(main())


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x02\xc3\x28", b""])
def test_malformed_bytes_end_their_own_stream(data: bytes) -> None:
    """A fuzzed request may end its own stream, never another one (rule 55)."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache) as (server, port), connect(port) as channel:
            good, bad = open_stream(channel), open_stream(channel)
            await good.write()
            nonce = (await good.read()).nonce
            await bad.write_bytes(data)
            assert await bad.code() is grpc.StatusCode.INVALID_ARGUMENT
            await good.write(response_nonce=nonce)
            cache.set("n", Snapshot.of(cluster("a", 2)))
            assert len((await good.read()).resources) == 1
            assert server.stream_count == 1

    run(main())


def test_malformed_bytes_later_on_too() -> None:
    async def main() -> None:
        async with serve(SnapshotCache()) as (_, port), connect(port) as channel:
            stream = open_stream(channel)
            await stream.write()
            await stream.write_bytes(b"\x0a\xff")
            assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(main())


def test_large_messages_both_ways() -> None:
    """Messages of more than 4 MiB pass in both directions (rule 6)."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(*(cluster(f"cluster-{i}", 1000) for i in range(20_000))))
        async with serve(cache) as (_, port), connect(port) as channel:
            stream = open_stream(channel)
            held = {f"gone-{i}": "x" * 40 for i in range(100_000)}
            await stream.write(initial_resource_versions=held)
            response = await stream.read()
            assert len(response.resources) == 20_000
            assert len(response.removed_resources) == 100_000
            assert response.ByteSize() > 20_000_000

    run(main())


def test_stop_is_orderly() -> None:
    """Streams end with a status, at once, so that clients reconnect; the port is free again (rule 7)."""

    async def main() -> None:
        cache, recorder = SnapshotCache(), Recorder()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache, observer=recorder) as (server, port), connect(port) as channel:
            streams = [open_stream(channel) for _ in range(20)]
            for stream in streams:
                await stream.write()
                await stream.read()
            began = time.monotonic()
            await server.stop(5)
            assert time.monotonic() - began < 1
            assert {await stream.code() for stream in streams} == {grpc.StatusCode.UNAVAILABLE}
            assert recorder.open_count == 0
            again = XdsServer(cache)
            assert await again.start("127.0.0.1", port) == port
            await again.stop(0)

    run(main())


def test_start_on_a_taken_port_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with serve(SnapshotCache()) as (_, port):
            other = XdsServer(SnapshotCache())
            with pytest.raises(OSError, match="in use"):
                await other.start("127.0.0.1", port)

    run(main())


def test_thousand_reconnects_leave_nothing_behind() -> None:
    """A stream that ends, in order or not, frees all that it held (rule 48)."""

    async def main() -> None:
        cache, recorder = SnapshotCache(), Recorder()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache, observer=recorder) as (server, port):
            for round_ in range(20):
                async with connect(port) as channel:
                    for i in range(50):
                        stream = open_stream(channel)
                        await stream.write()
                        await stream.read()
                        if i % 2:
                            stream.call.cancel()
                        elif i % 3:
                            await stream.call.done_writing()
                if round_ == 0:
                    await _until(lambda: server.stream_count == 0)
                    tasks = len(asyncio.all_tasks())
            await _until(lambda: server.stream_count == 0)
            assert recorder.open_count == 0
            assert len(recorder.opened) == 1000
            assert not server._fleet._targets
            await _until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
            gc.collect()
            assert not [item for item in gc.get_objects() if isinstance(item, Stream)]

    run(main())


def test_reader_that_never_reads_delays_nobody() -> None:
    """A client that does not read holds up only itself, and costs no memory for what it missed (rule 54)."""

    async def main() -> None:
        cache = SnapshotCache()
        body = 4_000_000
        async with serve(cache) as (_, port), connect(port) as stuck_channel, connect(port) as channel:
            stuck = open_stream(stuck_channel, node_id="stuck")
            await stuck.write()
            await stuck.write(type_url=types.LISTENER)
            stream = open_stream(channel)
            await stream.write()
            nonce = ""
            for i in range(60):
                cache.set(
                    "stuck", Snapshot.of(cluster(f"a-{i}", body), XdsResource(types.LISTENER, f"{i}", b"x" * body))
                )
                cache.set("n", Snapshot.of(cluster("a", i + 1)))
                if nonce:
                    await stream.write(response_nonce=nonce)
                nonce = (await stream.read(2)).nonce
                if i == 5:
                    before = limits.getrusage(limits.RUSAGE_SELF).ru_maxrss
            grown_kb = limits.getrusage(limits.RUSAGE_SELF).ru_maxrss - before
            assert grown_kb < 60_000, "432 MB were offered to the client that does not read"
            stuck.call.cancel()

    run(main())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def _six_clients(stack: contextlib.AsyncExitStack, port: int) -> tuple[list[int], list[asyncio.Task[None]]]:
    """Six that hold what they asked for; the numbers of those whose streams have ended, and who waits for these."""
    streams = []
    for _ in range(6):
        channel = await stack.enter_async_context(connect(port))
        stream = open_stream(channel, ADS + "DeltaAggregatedResources")
        await stream.write(resource_names_subscribe=["a"])
        await stream.read()
        streams.append(stream)
    ends: list[int] = []
    return ends, [asyncio.create_task(_ended(stream, ends, number)) for number, stream in enumerate(streams)]


def test_clients_are_sent_away_one_by_one_and_no_more_come() -> None:
    """On its way out a server closes its port, and ends connections with GOAWAY, evenly over the time it is given."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache) as (server, port), contextlib.AsyncExitStack() as stack:
            ends, left = await _six_clients(stack, port)
            draining = asyncio.create_task(server.drain(0.6))
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            assert len(ends) < 6
            with pytest.raises(OSError, match="refused"):
                await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(draining, *left)
            assert sorted(ends) == list(range(6))

    run(main())


def test_some_clients_are_sent_away_and_the_others_stay() -> None:
    """Those of a server that has too many are asked to connect anew, and may; the rest notices nothing."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache) as (server, port), contextlib.AsyncExitStack() as stack:
            ends, left = await _six_clients(stack, port)
            assert await server.shed(2, spread_s=0.05) == 2
            while len(ends) < 2:
                await asyncio.sleep(0.01)
            assert server.stream_count == 4
            again = await stack.enter_async_context(connect(port))
            stream = open_stream(again, ADS + "DeltaAggregatedResources")
            await stream.write(resource_names_subscribe=["a"])
            assert (await stream.read()).resources[0].name == "a"
            assert len(ends) == 2
            assert await server.shed(99, spread_s=0.0) == 5
            await asyncio.gather(*left)

    run(main())


async def _ended(stream: Any, ends: list[int], number: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    ends.append(number)
