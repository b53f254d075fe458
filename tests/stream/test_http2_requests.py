"""Plain requests over HTTP/2 beside gRPC: httpx as the client, small ASGI applications, and all that goes wrong."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from tests._core.http2_bytes import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, OPENING, RST_STREAM, Peer, frame
from tests.stream.grpc_client import cluster, connect, create_certificate, open_stream, serve
from tests.stream.test_server import run

from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.stream import TlsFiles
from kumafast.stream.driver import GrpcProtocol
from kumafast.stream.http2_requests import AsgiRequests

BODY_BYTES_MAX = 8 << 20


async def read(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["more_body"]:
        body += message["body"]
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, in headers, and its body."""
    body = await read(receive)
    fields = [(b"X-" + name, value) for name, value in scope["headers"] if name in (b"host", b"content-type")]
    fields += [(b"x-seen", f"{scope['method']} {scope['scheme']} {scope['path']}".encode())]
    fields += [(b"x-query", scope["query_string"]), (b"x-client", scope["client"][0].encode())]
    fields += [(b"Connection", b"keep-alive"), (b"x-version", scope["http_version"].encode())]
    await send({"type": "http.response.start", "status": 201, "headers": fields})
    for at in range(0, len(body), 100_000):
        await send({"type": "http.response.body", "body": body[at : at + 100_000], "more_body": True})
    await send({"type": "http.response.body"})


def client(tls: TlsFiles | None = None) -> httpx.AsyncClient:
    verify: Any = ssl.create_default_context(cafile=str(tls.certificate)) if tls else True
    return httpx.AsyncClient(http1=False, http2=True, verify=verify, timeout=10, trust_env=False)


@pytest.mark.parametrize("is_tls", [False, True])
def test_plain_requests_share_the_connection_s_port_with_grpc(is_tls: bool, tmp_path: Path) -> None:
    async def main() -> None:
        tls = create_certificate(tmp_path) if is_tls else None
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache, tls=tls, http_app=echo) as (_, port):
            scheme = "https" if is_tls else "http"
            url = f"{scheme}://localhost:{port}/a%20path?q=%20"
            ca = tls.certificate.read_bytes() if tls else None
            async with client(tls) as http, connect(port, ca=ca) as channel:
                large = bytes(range(256)) * 12_000
                for body in (b"{}", large):
                    answer = await http.post(url, content=body, headers={"content-type": "application/json"})
                    assert (answer.http_version, answer.status_code, answer.content) == ("HTTP/2", 201, body)
                    assert answer.headers["x-host"] == f"localhost:{port}"
                    assert answer.headers["x-content-type"] == "application/json"
                    assert answer.headers["x-seen"] == f"POST {scheme} /a path"
                    assert answer.headers["x-query"] == "q=%20"
                    assert answer.headers["x-client"] == "127.0.0.1"
                    assert answer.headers["x-version"] == "2"
                    assert "connection" not in answer.headers
                answers = await asyncio.gather(*(http.put(url, content=b"%d" % each) for each in range(50)))
                assert [answer.content for answer in answers] == [b"%d" % each for each in range(50)]
                assert (await http.head(url)).content == b""
                stream = open_stream(channel)
                await stream.write()
                assert [resource.name for resource in (await stream.read()).resources] == ["a"]

    run(main())


def test_without_an_application_all_is_404(tmp_path: Path) -> None:
    async def main() -> None:
        async with serve(SnapshotCache()) as (_, port), client() as http:
            for method in ("GET", "POST", "DELETE"):
                assert (await http.request(method, f"http://127.0.0.1:{port}/bootstrap")).status_code == 404

    run(main())


class Wire:
    """Frames by hand, to a server on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = Peer(opening=b"")
        self._reader = reader
        self._writer = writer
        self._left = b""

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    def head(self, stream: int, flags: int = END_HEADERS, **changes: str | None) -> bytes:
        return self.peer.request(stream, flags, **{"content_type": None, **changes})

    async def frame(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and content of the next frame."""
        header = await asyncio.wait_for(self._reader.readexactly(9), 5)
        content = await self._reader.readexactly(int.from_bytes(header[:3], "big"))
        return header[3], header[4], int.from_bytes(header[5:9], "big"), content

    async def answer(self, stream: int) -> tuple[int, bytes]:
        """Status and body of a stream; status 0 where it was reset."""
        status, body = 0, b""
        while True:
            kind, flags, of, content = await self.frame()
            if of != stream:
                continue
            if kind == RST_STREAM:
                return 0, body
            if kind == HEADERS:
                status = int(dict(self.peer.decode(content))[":status"])
            if kind == DATA:
                body += content
            if flags & END_STREAM:
                return status, body


@asynccontextmanager
async def serve_app(app: Any, **options: float) -> AsyncIterator[tuple[Wire, set[GrpcProtocol]]]:
    connections: set[GrpcProtocol] = set()
    handler = AsgiRequests(app, **options).serve
    server = await asyncio.get_running_loop().create_server(
        lambda: GrpcProtocol({}, connections=connections, message_bytes_max=1000, http_handler=handler), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        wire = Wire(reader, writer)
        wire.send(OPENING)
        yield wire, connections
    finally:
        server.close()
        writer.close()
        for connection in tuple(connections):
            connection.abort()
        while connections:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"path": "bootstrap"}, 400),
        ({"path": "/a b"}, 400),
        ({"path": "/é"}, 400),
        ({"path": "*", "method": "OPTIONS"}, 404),
        ({"method": "CONNECT", "path": None, "scheme": None}, 404),
        ({"method": "GET IT"}, 400),
        ({"method": "M" * 33}, 400),
        ({"method": "M" * 32, "path": "/%ff?%ff"}, 201),
    ],
)
def test_bad_requests_end_their_own_stream(changes: dict[str, str | None], status: int) -> None:
    async def main() -> None:
        async with serve_app(echo) as (wire, _):
            wire.send(wire.head(1, END_HEADERS | END_STREAM, **changes))
            assert (await wire.answer(1))[0] == status
            wire.send(wire.head(3), frame(DATA, END_STREAM, 3, b"good"))
            assert await wire.answer(3) == (201, b"good")

    run(main())


async def fail(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("a defect")


async def fail_later(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a part", "more_body": True})
    raise RuntimeError("a defect")


async def say_nothing(scope: Any, receive: Any, send: Any) -> None:
    await read(receive)


async def say_half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a part", "more_body": True})


async def say_no_start(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def say_too_much(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"v" * 10_000)]})
    await send({"type": "http.response.body", "body": b"x"})


@pytest.mark.parametrize(
    ("app", "answer"),
    [
        (fail, (500, b"Internal Server Error")),
        (fail_later, (0, b"a part")),
        (say_nothing, (500, b"Internal Server Error")),
        (say_half, (0, b"a part")),
        (say_no_start, (500, b"Internal Server Error")),
        (say_too_much, (500, b"Internal Server Error")),
    ],
)
def test_applications_that_fail_end_their_own_stream(
    app: Any, answer: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serve_app(app) as (wire, connections):
            with caplog.at_level(logging.ERROR):
                wire.send(wire.head(1, END_HEADERS | END_STREAM))
                assert await wire.answer(1) == answer
            assert "the application" in caplog.text
            assert len(connections) == 1

    run(main())


def test_request_ends_in_time() -> None:
    """A body that does not come, an application that does not answer, a client that does not read."""

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await read(receive)
        if scope["path"] == "/long":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": False})
        await asyncio.sleep(30)

    async def main() -> None:
        async with serve_app(hang, exchange_max_s=0.2) as (wire, connections):
            wire.send(wire.head(1), frame(DATA, 0, 1, b"some"))
            assert await wire.answer(1) == (408, b"the request took too long")
            wire.send(wire.head(3, END_HEADERS | END_STREAM))
            assert await wire.answer(3) == (503, b"the answer took too long")
            # The window of the connection is 65,535 and never given back.
            wire.send(wire.head(5, END_HEADERS | END_STREAM, path="/long"))
            status, body = await wire.answer(5)
            assert (status, 65_000 < len(body) < 65_536) == (0, True)
            assert len(connections) == 1

    run(main())


def test_client_that_goes_cancels_its_request() -> None:
    ends: list[str] = []

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        try:
            await read(receive)
            ends.append("read")
            await receive()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def main() -> None:
        async with serve_app(wait) as (wire, connections):
            wire.send(wire.head(1), wire.head(3, END_HEADERS | END_STREAM))
            while not ends:
                await asyncio.sleep(0.01)
            wire.send(frame(RST_STREAM, 0, 1, bytes(4)))
            while len(ends) < 2:
                await asyncio.sleep(0.01)
            assert len(connections) == 1
            next(iter(connections)).abort()
            while len(ends) < 3:
                await asyncio.sleep(0.01)
            assert ends == ["read", "cancelled", "cancelled"]

    run(main())


def test_body_too_large_is_refused_where_the_application_takes_all() -> None:
    async def main() -> None:
        async with serve(SnapshotCache(), http_app=echo) as (_, port), client() as http:
            url = f"http://127.0.0.1:{port}/"
            assert (await http.post(url, content=bytes(BODY_BYTES_MAX - 1))).status_code == 201
            assert (await http.post(url, content=bytes(BODY_BYTES_MAX + 1))).status_code == 413
            assert (await http.post(url, content=b"good")).content == b"good"

    run(main())


def test_connection_without_requests_is_closed_but_not_one_with_grpc() -> None:
    async def main() -> None:
        async with serve_app(echo, keep_alive_s=0.2) as (wire, connections):
            for stream in (1, 3):
                wire.send(wire.head(stream, END_HEADERS | END_STREAM))
                await wire.answer(stream)
                await asyncio.sleep(0.15)
            wire.send(wire.head(5))
            await asyncio.sleep(0.3)
            assert connections, "a request is under way"
            wire.send(frame(DATA, END_STREAM, 5))
            await wire.answer(5)
            kind, *_ = await wire.frame()
            assert kind == GOAWAY

    run(main())


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("is_tls", [False, True])
def test_curl_speaks_both_versions(is_tls: bool, tmp_path: Path) -> None:
    async def main() -> None:
        tls = create_certificate(tmp_path) if is_tls else None
        (tmp_path / "body").write_bytes(b"x" * 3_000_000)
        async with serve(SnapshotCache(), tls=tls, http_app=echo) as (_, port):
            trust = ["--cacert", str(tls.certificate), "--http2"] if tls else ["--http2-prior-knowledge"]
            curl = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "-m", "10", *trust, "--data-binary", f"@{tmp_path / 'body'}"),
                *("-w", "%{http_version} %{http_code}", "-o", str(tmp_path / "answer")),
                f"{'https' if tls else 'http'}://localhost:{port}/",
                stdout=asyncio.subprocess.PIPE,
            )
            assert (await curl.communicate())[0] == b"2 201"
            assert (tmp_path / "answer").read_bytes() == b"x" * 3_000_000

    run(main())


def test_grpc_goes_on_while_plain_requests_fail() -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache, http_app=fail) as (_, port), connect(port) as channel, client() as http:
            stream = open_stream(channel)
            await stream.write()
            await stream.write(response_nonce=(await stream.read()).nonce)
            answers = await asyncio.gather(*(http.get(f"http://127.0.0.1:{port}/") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {500}
            cache.set("n", Snapshot.of(cluster("b")))
            assert [resource.name for resource in (await stream.read()).resources] == ["b"]
            state: Any = channel.get_state()
            assert state is grpc.ChannelConnectivity.READY

    run(main())
