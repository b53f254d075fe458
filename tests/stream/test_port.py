"""One port for gRPC and HTTP/1.1, with TLS and without; and clients that say nothing."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import cast

import pytest
from tests.stream.grpc_client import cluster, connect, create_certificate, open_stream, serve
from tests.stream.test_server import run

from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.stream import port as port_module
from kumafast.stream.tls import TlsFiles


class Echo(asyncio.Protocol):
    """An HTTP protocol of a few lines: it answers with what it was asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.heard = b""

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if not self.heard.endswith(b"\r\n\r\n"):
            return
        body = b"heard " + self.heard
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


async def ask(port: int, *parts: bytes, context: ssl.SSLContext | None = None) -> bytes:
    name = "localhost" if context is not None else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    answer = await asyncio.wait_for(reader.read(1000), 5)
    writer.close()
    return answer


def client_context(files: TlsFiles, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.certificate))
    context.check_hostname = False
    if version is not None:
        context.maximum_version = version
    return context


@pytest.mark.parametrize("is_tls", [False, True])
def test_grpc_and_http_share_a_port(is_tls: bool, tmp_path: Path) -> None:
    async def main() -> None:
        tls = create_certificate(tmp_path) if is_tls else None
        context = client_context(tls) if tls else None
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(cluster("a")))
        async with serve(cache, tls=tls, http_protocol=Echo) as (_, port):
            ca = tls.certificate.read_bytes() if tls else None
            async with connect(port, ca=ca) as channel:
                stream = open_stream(channel)
                await stream.write()
                assert [resource.name for resource in (await stream.read()).resources] == ["a"]
                assert b"heard POST /bootstrap" in await ask(port, b"POST /bootstrap HTTP/1.1\r\n\r\n", context=context)
                # The first bytes may come one at a time, and P is the first of both.
                assert b"heard PUT / HTTP/1.1" in await ask(port, b"P", b"U", b"T / HTTP/1.1\r\n\r\n", context=context)
                later = open_stream(channel)
                await later.write()
                assert await later.read()

    run(main())


def test_http2_without_alpn_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    """Envoy names no protocol in its TLS handshake."""

    async def main() -> None:
        tls = create_certificate(tmp_path)
        async with serve(SnapshotCache(), tls=tls, http_protocol=Echo) as (_, port):
            settings = b"\0\0\0\x04\0\0\0\0\0"
            for parts in (
                [port_module.PREFACE + settings],
                [port_module.PREFACE[:5], port_module.PREFACE[5:] + settings],
            ):
                answer = await ask(port, *parts, context=client_context(tls))
                assert answer[3] == 4, "a server's first frame is SETTINGS"

    run(main())


def test_large_answers_pass_whole(tmp_path: Path) -> None:
    async def main() -> None:
        tls = create_certificate(tmp_path)
        cache = SnapshotCache()
        cache.set("n", Snapshot.of(*(cluster(f"{i}", 100_000) for i in range(300))))
        async with serve(cache, tls=tls) as (_, port), connect(port, ca=tls.certificate.read_bytes()) as channel:
            stream = open_stream(channel)
            await stream.write()
            response = await stream.read()
            assert {len(resource.resource.value) for resource in response.resources} == {100_000}
            assert len(response.resources) == 300

    run(main())


def test_http_without_a_protocol_is_told_so() -> None:
    async def main() -> None:
        async with serve(SnapshotCache()) as (_, port):
            assert (await ask(port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")

    run(main())


def test_silent_client_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "SILENCE_MAX_S", 0.2)

    async def main() -> None:
        async with serve(SnapshotCache(), http_protocol=Echo) as (_, port):
            assert await ask(port) == b""
            assert await ask(port, b"PRI * HT") == b""
            # One that has said what it speaks may be silent for as long as it likes.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /")
            await asyncio.sleep(0.4)
            writer.write(b" HTTP/1.1\r\n\r\n")
            assert b"heard GET /" in await asyncio.wait_for(reader.read(1000), 5)
            writer.close()

    run(main())


def test_old_tls_is_refused_and_plaintext_too(tmp_path: Path) -> None:
    async def main() -> None:
        tls = create_certificate(tmp_path)
        async with serve(SnapshotCache(), tls=tls, http_protocol=Echo) as (_, port):
            for version, is_taken in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
                answer = await ask(port, b"GET / HTTP/1.1\r\n\r\n", context=client_context(tls, version))
                assert (b"heard" in answer) is is_taken
            assert tls.create_context().minimum_version is ssl.TLSVersion.TLSv1_2
            assert b"heard" not in await ask(port, b"GET / HTTP/1.1\r\n\r\n")

    run(main())


def test_certificate_of_no_use_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "bad").write_text("nothing of use")
        with pytest.raises(OSError, match="PEM"):
            async with serve(SnapshotCache(), tls=TlsFiles(certificate=tmp_path / "bad", key=tmp_path / "bad")):
                pass

    run(main())
