"""The authorization matrix of streams: every kind of token on every kind of stream, each cell, with grpcio's client.

What the first proxy receives is recorded between it and the server, and searched for what is meant for the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from tests import token_cases
from tests.pipeline import dataplane, service
from tests.stream.grpc_client import ADS
from tests.token_cases import MESH, OTHER_MESH, Cases, identifier, revocations, sign

from kumafast import ControlPlane, Mesh
from kumafast.resources import ResourceKey, Secret
from kumafast.settings import Settings
from kumafast.snapshot import Snapshot, XdsResource
from kumafast.snapshot.resource import SECRET

METHODS = {
    "ADS sotw": ADS + "StreamAggregatedResources",
    "ADS delta": ADS + "DeltaAggregatedResources",
    "SDS sotw": "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
    "SDS delta": "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
}
OWN, FOREIGN = b"own-secret-bytes", b"foreign-secret-bytes"
WAIT_S = 10.0


class Tap:
    """A wire between clients and a server, which keeps all that clients are sent. It is plaintext and needs to be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.received = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, into = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
            try:
                while data := await source.read(65536):
                    if kept is not None:
                        kept += data
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, into, None), pump(beyond, writer, self.received))


@dataclass
class Client:
    """One stream of a node, with its token in the request's header."""

    call: Any
    is_delta: bool
    node: str

    async def ask(self, *names: str, node: str | None = None) -> None:
        """Subscribe to secrets."""
        said = {"node": {"id": self.node if node is None else node}, "type_url": SECRET}
        message = (
            discovery_pb2.DeltaDiscoveryRequest(**said, resource_names_subscribe=names)
            if self.is_delta
            else discovery_pb2.DiscoveryRequest(**said, resource_names=names)
        )
        await self.call.write(message.SerializeToString())

    async def acknowledge(self, data: bytes) -> None:
        """Take what came."""
        if self.is_delta:
            nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(data).nonce
            message = discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=nonce)
            await self.call.write(message.SerializeToString())

    async def verdict(self) -> tuple[str, str]:
        """How the server ended the stream."""
        # The status comes behind the messages that have not been read.
        with contextlib.suppress(grpc.aio.AioRpcError):
            while isinstance(await asyncio.wait_for(self.call.read(), WAIT_S), bytes):
                pass
        code = await asyncio.wait_for(self.call.code(), WAIT_S)
        return code.name, await self.call.details()


@dataclass
class World:
    """A control plane that requires tokens, with the dataplanes a and b; `tap` is where clients connect."""

    control_plane: ControlPlane
    tap: Tap
    address: str
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def proxies(self) -> Any:
        return self.control_plane._proxies

    def open(self, authorization: str, *, node: str = "default.a", method: str = METHODS["ADS delta"]) -> Client:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self.address, options=options)
        self.channels.append(channel)
        metadata = [("authorization", authorization)] if authorization else []
        method_of: Any = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
        return Client(method_of(metadata=metadata), "/Delta" in method, node)

    async def admitted(self, client: Client, count: int = 1, *, name: str = "own", content: bytes = OWN) -> None:
        """A client that asks and is let in; it is given a secret of its own."""
        await client.ask("own", "foreign")
        await until(lambda: len(self.proxies) == count)
        # What the pipeline publishes for a newcomer comes once, and may come later than this.
        reading = asyncio.ensure_future(client.call.read())
        for _ in range(100):
            self.control_plane.cache.set(client.node, Snapshot.of(XdsResource(SECRET, name, content)))
            await asyncio.wait({reading}, timeout=0.1)
            if reading.done():
                await client.acknowledge(reading.result())
                if content in reading.result():
                    return
                # In delta a client is told as well what there is not.
                reading = asyncio.ensure_future(client.call.read())
        raise AssertionError("nothing came")

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close(None)
        self.channels.clear()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@asynccontextmanager
async def world(directory: Path, *revoked: str, **over: Any) -> AsyncIterator[World]:
    settings = Settings(
        data_dir=str(directory),
        store="memory",
        api_port=0,
        dp_port=0,
        diagnostics_port=0,
        dp_tls=False,
        **{"dp_auth": "token", **over},
    )
    async with ControlPlane(settings) as control_plane:
        await control_plane.put(Mesh(name=OTHER_MESH))
        secrets = [token_cases.mesh_key(MESH), token_cases.mesh_key(OTHER_MESH), token_cases.user_key()]
        for secret in [*secrets, *([revocations(*revoked)] if revoked else [])]:
            await control_plane.put(secret)
        for name in ("a", "b"):
            await control_plane.put(dataplane(name, tags=service(name)))
        revision = (await control_plane.put(dataplane("a", mesh=OTHER_MESH, tags=service("a")))).revision
        await control_plane.converged(revision)
        control_plane.cache.set("default.b", Snapshot.of(XdsResource(SECRET, "foreign", FOREIGN)))
        tap = Tap(int(control_plane.dp_url.rpartition(":")[2]))
        server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
        opened = World(control_plane, tap, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield opened
        finally:
            await opened.close()
            server.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 120)

    uvloop.run(bounded())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_matrix(tmp_path: Path, method: str) -> None:
    async def main() -> None:
        cases = Cases()
        table = cases.all()
        async with world(tmp_path, identifier(cases.revoked)) as w:
            for what, case in table.items():
                client = w.open(case.authorization, method=method)
                if case.why is None:
                    await w.admitted(client)
                    # Whoever it says to be later: it is given nothing else.
                    await client.ask("foreign", "own", node="default.b")
                    await asyncio.sleep(0.05)
                    assert not client.call.done(), what
                else:
                    await client.ask("own", "foreign")
                    code, details = await client.verdict()
                    assert (code, case.why in details) == ("UNAUTHENTICATED", True), (what, code, details)
                    assert case.authorization == "" or case.authorization not in details
                client.call.cancel()
                await w.close()
                await until(lambda: len(w.proxies) == 0)
            assert FOREIGN not in w.tap.received
            assert w.tap.received.count(OWN) >= sum(case.why is None for case in table.values())
            # The tap shows what comes: to whom the secret belongs it goes this way.
            b = w.open(sign(Name="b"), node="default.b", method=method)
            await w.admitted(b, name="foreign", content=FOREIGN)
            assert FOREIGN in w.tap.received

    run(main)


NODES = {
    "no id": "",
    "no mesh": "a",
    "another dataplane": "default.b",
    "of another mesh": "other.a",
    "of a mesh that there is not": "nowhere.a",
    "one that begins like it": "default.a.b",
    "the key of all": "*",
}


def test_a_token_is_good_for_just_its_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            token = sign(Name="a")
            for what, node in NODES.items():
                for method in METHODS.values():
                    client = w.open(token, node=node, method=method)
                    await client.ask("own", "foreign")
                    assert (await client.verdict())[0] == "UNAUTHENTICATED", what
                await w.close()
            assert len(w.proxies) == 0
            assert FOREIGN not in w.tap.received
            # Nothing is remembered of what strangers make up.
            assert w.control_plane._keys is not None
            assert set(w.control_plane._keys._dataplanes) <= {MESH, OTHER_MESH}

    run(main)


def test_without_the_requirement_all_are_let_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, dp_auth="none") as w:
            client = w.open("garbage", node="default.b")
            await client.ask("foreign")
            await until(lambda: w.control_plane.cache.get("default.b") is not None)
            await asyncio.sleep(0.05)
            assert not client.call.done()

    run(main)


Change = Callable[[World, str], Awaitable[object]]


async def _revoke(w: World, token: str) -> None:
    await w.control_plane.put(revocations(identifier(token)))


async def _drop_key(w: World, token: str) -> None:
    await w.control_plane.delete("Secret", token_cases.mesh_key(MESH).name, mesh=MESH)


async def _replace_key(w: World, token: str) -> None:
    name = token_cases.mesh_key(MESH).name
    await w.control_plane.put(Secret(mesh=MESH, name=name, data=token_cases.mesh_key(MESH, 2).data))


async def _change_tags(w: World, token: str) -> None:
    await w.control_plane.put(dataplane("a", tags=service("b")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_revoke, "revoked"),
        (_drop_key, "a key that is not known here"),
        (_replace_key, "a key that is not known here"),
        (_change_tags, "does not allow"),
    ],
)
def test_who_was_let_in_has_to_leave(tmp_path: Path, change: Change, why: str) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            token = sign(Name="a", Tags={"kuma.io/service": ("a",)})
            client, other = w.open(token), w.open(sign(keys_of_other(), Name="a", Mesh=OTHER_MESH), node="other.a")
            await w.admitted(client)
            await w.admitted(other, 2)
            began = time.monotonic()
            await change(w, token)
            code, details = await client.verdict()
            assert (code, why in details) == ("UNAUTHENTICATED", True), details
            assert time.monotonic() - began < 2
            # Nobody else is troubled, and the one that left cannot come back.
            assert not other.call.done()
            assert len(w.proxies) == 1
            again = w.open(token)
            await again.ask("own")
            assert (await again.verdict())[0] == "UNAUTHENTICATED"

    run(main)


def keys_of_other() -> Any:
    return token_cases.keys(OTHER_MESH)


def test_a_stream_ends_when_its_token_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            client = w.open(sign(Name="a", valid_for=timedelta(seconds=3)))
            await w.admitted(client)
            assert await client.verdict() == ("UNAUTHENTICATED", "the token has expired")

    run(main)


def test_keys_rotate_without_a_disconnect(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            old = w.open(sign(Name="a"))
            await w.admitted(old)
            await w.control_plane.put(token_cases.mesh_key(MESH, 2))
            await until(lambda: w.proxies.judged_again > 0)
            new = w.open(sign(token_cases.keys(MESH, 2), Name="a"))
            await new.ask("own")
            await until(lambda: len(w.proxies) == 2)
            assert not old.call.done()
            # The old key goes when its last token is out of use; until then both are good.
            await _drop_key(w, "")
            assert (await old.verdict())[0] == "UNAUTHENTICATED"
            assert len(w.proxies) == 1
            assert not new.call.done()

    run(main)


CSDS_CALLERS: dict[str, tuple[Callable[[], str], str]] = {
    "administrator": (lambda: token_cases.user("mesh-system:admin"), "OK"),
    "administrator, after Bearer": (lambda: f"Bearer {token_cases.user('mesh-system:admin')}", "OK"),
    "user": (lambda: token_cases.user("team-a"), "PERMISSION_DENIED"),
    "editor": (lambda: token_cases.user("mesh-editor:default"), "PERMISSION_DENIED"),
    "dataplane": (lambda: sign(Name="a"), "UNAUTHENTICATED"),
    "none": (lambda: "", "UNAUTHENTICATED"),
    "garbage": (lambda: "garbage", "UNAUTHENTICATED"),
}


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "fetch"])
def test_csds_is_for_administrators(tmp_path: Path, streams: bool) -> None:
    async def main() -> None:
        async with world(tmp_path) as w, grpc.aio.insecure_channel(w.address) as channel:
            stub: Any = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
            for who, (authorization, expected) in CSDS_CALLERS.items():
                metadata = [("authorization", authorization())] if authorization() else []
                request = csds_pb2.ClientStatusRequest()
                call = (
                    stub.StreamClientStatus(iter([request]), metadata=metadata)
                    if streams
                    else stub.FetchClientStatus(request, metadata=metadata)
                )
                if streams:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        assert await asyncio.wait_for(call.read(), WAIT_S) is not None
                code = await asyncio.wait_for(call.code(), WAIT_S)
                assert code.name == expected, (who, await call.details())

    run(main)


def test_a_dataplane_that_is_not_registered_yet(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as w:
            # By its name it may wait for its registration; by its tags it cannot be known before that.
            named = w.open(sign(Name="late"), node="default.late")
            await named.ask("own")
            await until(lambda: len(w.proxies) == 1)
            tagged = w.open(sign(Tags={"kuma.io/service": ("late",)}), node="default.late")
            await tagged.ask("own")
            code, details = await tagged.verdict()
            assert code == "UNAUTHENTICATED"
            assert "no dataplane late is registered" in details
            key = (await w.control_plane.put(dataplane("late", tags=service("late")))).resource.key
            assert key == ResourceKey("Dataplane", MESH, "late")
            await asyncio.sleep(0.1)
            assert not named.call.done()

    run(main)
