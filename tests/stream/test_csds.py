"""CSDS with grpcio's own stub: what stands with each client, both methods, and who does not hold up whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.admin.v3 import config_dump_shared_pb2 as dump_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf import json_format
from tests.stream.grpc_client import ADS, Stream, cluster, connect, open_stream, serve
from tests.stream.test_server import run

from kumafast.insights import Clients
from kumafast.snapshot import Layer, Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.resource import CLUSTER, LISTENER, SECRET
from kumafast.stream import Csds, XdsServer

Config = csds_pb2.ClientConfig.GenericXdsConfig


@dataclass
class World:
    cache: SnapshotCache
    clients: Clients
    server: XdsServer
    channel: grpc.aio.Channel
    stub: Any

    async def ask(self, **fields: Any) -> Any:
        request = json_format.ParseDict(fields, csds_pb2.ClientStatusRequest())
        return await self.stub.FetchClientStatus(request, timeout=10)

    async def resources(self) -> dict[str, Any]:
        """The statuses of the only client's resources by name."""
        [config] = (await self.ask()).config
        return {status.name: status for status in config.generic_xds_configs}

    async def settled(self, name: str, config_status: int) -> Any:
        """A resource's status once it is another than before: an ACK is on its way for a moment."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            status = (await self.resources())[name]
            if status.config_status == config_status:
                return status
            await asyncio.sleep(0.01)
        raise AssertionError(status)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    cache, clients = SnapshotCache(), Clients()
    handlers = Csds(clients, cache, **options).handlers()
    async with serve(cache, observer=clients, handlers=handlers) as (server, port), connect(port) as channel:
        yield World(cache, clients, server, channel, csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel))


def named(version: str, *resources: XdsResource) -> Snapshot:
    return Snapshot([Layer(resources)], default_version=version)


async def take(stream: Stream) -> Any:
    response = await stream.read()
    await stream.write(response.type_url, response_nonce=response.nonce)
    return response


@pytest.mark.parametrize("method", ["DeltaAggregatedResources", "StreamAggregatedResources"])
def test_a_resource_from_sent_to_taken_refused_and_taken_again(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", named("1", cluster("a"), cluster("b")))
            stream = open_stream(w.channel, ADS + method)
            await stream.write()
            first = await stream.read()
            sent = await w.settled("a", csds_pb2.STALE)
            assert (sent.client_status, sent.version_info) == (dump_pb2.REQUESTED, "")
            assert (sent.type_url, sent.xds_config.type_url) == (CLUSTER, CLUSTER)
            assert sent.xds_config.value == cluster("a").body
            await stream.write(response_nonce=first.nonce)
            taken = await w.settled("a", csds_pb2.SYNCED)
            assert (taken.client_status, taken.version_info) == (dump_pb2.ACKED, "1")
            assert abs(taken.last_updated.seconds - time.time()) < 60
            assert not taken.HasField("error_state")

            w.cache.set("n", named("2", cluster("a", 2), cluster("b")))
            second = await stream.read()
            await stream.write(response_nonce=second.nonce, error="no such thing")
            refused = await w.settled("a", csds_pb2.ERROR)
            assert (refused.client_status, refused.version_info) == (dump_pb2.NACKED, "1")
            assert (refused.error_state.details, refused.error_state.version_info) == ("no such thing", "2")
            assert abs(refused.error_state.last_update_attempt.seconds - time.time()) < 60
            # What it runs, and what it did not take.
            assert refused.xds_config.value == cluster("a").body
            assert refused.error_state.failed_configuration.value == cluster("a", 2).body
            # The other one in the refused set is what it held before.
            assert (await w.resources())["b"].config_status == csds_pb2.SYNCED

            w.cache.set("n", named("3", cluster("a", 3), cluster("b")))
            await take(stream)
            again = await w.settled("a", csds_pb2.SYNCED)
            assert (again.client_status, again.version_info) == (dump_pb2.ACKED, "3")

    run(main())


def test_what_was_not_asked_for_is_not_sent() -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", Snapshot.of(cluster("a"), XdsResource(LISTENER, "l", b"l")))
            stream = open_stream(w.channel)
            await stream.write()
            await take(stream)
            await w.settled("a", csds_pb2.SYNCED)
            # Synced is synced in what it asked for: listeners may be unknown to it.
            assert (await w.resources())["l"].config_status in (csds_pb2.NOT_SENT, csds_pb2.UNKNOWN)
            w.cache.set("n", Snapshot.of(cluster("a"), XdsResource(LISTENER, "l", b"l2"), cluster("c", 5)))
            await stream.read()
            listener = (await w.resources())["l"]
            assert (listener.config_status, listener.client_status) == (csds_pb2.NOT_SENT, dump_pb2.UNKNOWN)

    run(main())


def test_a_newer_snapshot_that_waits_is_not_sent() -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", named("1", cluster("a")))
            stream = open_stream(w.channel)
            await stream.write()
            first = await stream.read()
            w.cache.set("n", named("2", cluster("a", 2)))
            waiting = await w.settled("a", csds_pb2.NOT_SENT)
            assert waiting.version_info == ""
            await stream.write(response_nonce=first.nonce)
            await take(stream)
            assert (await w.settled("a", csds_pb2.SYNCED)).version_info == "2"

    run(main())


def test_who_is_meant_and_who_has_gone() -> None:
    async def main() -> None:
        async with world() as w:
            streams = []
            for name in ("web-1", "web-2", "db-1"):
                w.cache.set(name, Snapshot.of(cluster(f"of-{name}")))
                stream = open_stream(w.channel, node_id=name)
                await stream.write()
                await stream.read()
                streams.append(stream)
            without = open_stream(w.channel, node_id="nothing-put")
            await without.write()

            async def names(*matchers: dict[str, Any]) -> list[str]:
                answer = await w.ask(nodeMatchers=[{"nodeId": matcher} for matcher in matchers])
                return [config.node.id for config in answer.config]

            while len(await names()) < 4:
                await asyncio.sleep(0.01)
            assert await names() == ["web-1", "web-2", "db-1", "nothing-put"]
            assert await names({"prefix": "web"}) == ["web-1", "web-2"]
            assert await names({"exact": "db-1"}, {"suffix": "-2"}) == ["web-2", "db-1"]
            assert await names({"exact": "absent"}) == []
            answer = await w.ask(nodeMatchers=[{"nodeId": {"exact": "nothing-put"}}])
            assert list(answer.config[0].generic_xds_configs) == []
            streams[0].call.cancel()
            while len(await names({"prefix": "web"})) > 1:
                await asyncio.sleep(0.01)
            assert await names({"prefix": "web"}) == ["web-2"]

    run(main())


def test_secrets_are_named_and_not_shown_and_contents_can_be_left_out() -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", Snapshot.of(cluster("a"), XdsResource(SECRET, "key", b"private")))
            stream = open_stream(w.channel)
            await stream.write()
            await take(stream)
            await stream.write(SECRET, resource_names_subscribe=["key"])
            nonce = (await stream.read()).nonce
            await stream.write(SECRET, response_nonce=nonce, error="not a key")
            status = await w.settled("key", csds_pb2.ERROR)
            assert status.error_state.details == "not a key"
            assert b"private" not in (await w.ask()).SerializeToString()
            [config] = (await w.ask(excludeResourceContents=True)).config
            assert {status.name for status in config.generic_xds_configs} == {"a", "key"}
            assert not any(status.HasField("xds_config") for status in config.generic_xds_configs)

    run(main())


def test_the_stream_answers_each_request_and_ends_with_the_client_or_the_server() -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", Snapshot.of(cluster("a")))
            stream = open_stream(w.channel)
            await stream.write()
            await stream.read()
            request = csds_pb2.ClientStatusRequest()
            call, held = w.stub.StreamClientStatus(), w.stub.StreamClientStatus()
            for _ in range(3):
                await call.write(request)
                assert [config.node.id for config in (await call.read()).config] == ["n"]
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            await held.write(request)
            await held.read()
            began = time.monotonic()
            await w.server.stop(5)
            assert time.monotonic() - began < 2
            assert await held.code() is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_what_cannot_be_served_ends_its_own_call() -> None:
    async def main() -> None:
        async with world(response_bytes_max=1000) as w:
            w.cache.set("n", Snapshot.of(cluster("a", 2000)))
            stream = open_stream(w.channel)
            await stream.write()
            await stream.read()
            with pytest.raises(grpc.aio.AioRpcError) as large:
                await w.ask()
            assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "exclude_resource_contents" in (large.value.details() or "")
            assert len((await w.ask(excludeResourceContents=True)).config) == 1
            with pytest.raises(grpc.aio.AioRpcError) as regex:
                await w.ask(nodeMatchers=[{"nodeId": {"safeRegex": {"regex": "(a+)+$"}}}])
            assert regex.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            path = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
            call = open_stream(w.channel, path).call
            await call.write(b"\xff\xff")
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            empty = open_stream(w.channel, path).call
            await empty.done_writing()
            assert await empty.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert w.server.stream_count == 1

    run(main())


def test_a_large_answer_lets_others_have_their_turn() -> None:
    async def main() -> None:
        async with world() as w:
            snapshot = Snapshot.of(*(cluster(f"cluster-{number}") for number in range(200)))
            for number in range(200):
                w.cache.set(f"n{number}", snapshot)
                stream = open_stream(w.channel, node_id=f"n{number}")
                await stream.write()
                await stream.read()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            csds = Csds(w.clients, w.cache)
            counting = asyncio.create_task(count())
            await asyncio.sleep(0)
            began, before = time.process_time(), turns
            answer = await csds._answer(b"")
            taken = time.process_time() - began
            counting.cancel()
            assert len(csds_pb2.ClientStatusResponse.FromString(answer).config) == 200
            # A turn of the loop at least for each 50 ms of work; 5 ms are meant.
            assert turns - before > taken / 0.05

    run(main())


def _answer_of(*nodes: str) -> bytes:
    message = csds_pb2.ClientStatusResponse()
    for node in nodes:
        message.config.add().node.id = node
    return b"\0" + bytes(message.SerializeToString())


def test_the_clients_of_other_servers_are_shown_with_our_own() -> None:
    asked: list[bytes] = []

    async def others(data: bytes) -> tuple[list[bytes], list[str]]:
        asked.append(data)
        return [_answer_of("there"), _answer_of(), _answer_of("yonder", "beyond")], []

    async def main() -> None:
        async with world(others=others) as w:
            w.cache.set("n", named("1", cluster("a")))
            stream = open_stream(w.channel, ADS + "DeltaAggregatedResources")
            await stream.write()
            await stream.read()
            request = {"excludeResourceContents": True}
            answer = await w.ask(**request)
            assert [config.node.id for config in answer.config] == ["n", "there", "yonder", "beyond"]
            assert asked == [json_format.ParseDict(request, csds_pb2.ClientStatusRequest()).SerializeToString()]

    run(main())


@pytest.mark.parametrize(
    ("parts", "missing", "code", "details"),
    [
        ([_answer_of("there")], ["host-9f"], grpc.StatusCode.UNAVAILABLE, "of host-9f, which live, there is no answer"),
        ([b"\x01too long"], [], grpc.StatusCode.RESOURCE_EXHAUSTED, "too long"),
        ([_answer_of("x" * 3000)], [], grpc.StatusCode.RESOURCE_EXHAUSTED, "would be longer than 2000 bytes"),
    ],
)
def test_what_other_servers_do_not_show_is_said(
    parts: list[bytes], missing: list[str], code: grpc.StatusCode, details: str
) -> None:
    async def others(_: bytes) -> tuple[list[bytes], list[str]]:
        return parts, missing

    async def main() -> None:
        async with world(others=others, response_bytes_max=2000) as w:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await w.ask()
            assert caught.value.code() == code
            assert details in (caught.value.details() or "")

    run(main())


def test_what_another_server_is_told_has_no_more_than_our_own_and_says_why_not() -> None:
    async def main() -> None:
        async with world() as w:
            w.cache.set("n", named("1", cluster("a"), cluster("b")))
            stream = open_stream(w.channel, ADS + "DeltaAggregatedResources")
            await stream.write()
            await stream.read()
            told = await Csds(w.clients, w.cache).own(b"")
            assert told[:1] == b"\0"
            assert len(csds_pb2.ClientStatusResponse.FromString(told[1:]).config) == 1
            assert (await Csds(w.clients, w.cache, response_bytes_max=10).own(b""))[:1] == b"\x01"

    run(main())
