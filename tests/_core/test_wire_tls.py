"""TLS in the core, against Python's ssl as the client: versions, ALPN, clients' certificates, reloads, bad ends."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kumafast._core import HAS_TLS, TlsContext, TlsTransport

pytestmark = pytest.mark.skipif(not HAS_TLS, reason="built without OpenSSL; Python's ssl serves")


@dataclass(frozen=True)
class Files:
    certificate: Path
    key: Path


def create_files(directory: Path, name: str) -> Files:
    """A self-signed certificate, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Files(directory / f"{name}.crt", directory / f"{name}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


class Echo(asyncio.Protocol):
    """Sends back what it is sent; the last connection's transport is in `last`."""

    last: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = Echo.last = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data == b"close":
            self.transport.writelines([b"good", b"bye"])
            self.transport.close()
        else:
            self.transport.write(data)


@asynccontextmanager
async def serve(
    context: TlsContext, handshake_s: float = 5.0, protocol: Callable[[], asyncio.Protocol] = Echo
) -> AsyncIterator[tuple[int, list[TlsTransport]]]:
    made: list[TlsTransport] = []

    def create() -> asyncio.BaseProtocol:
        made.append(TlsTransport(context, protocol, handshake_s))
        return cast(asyncio.BaseProtocol, made[-1])

    server = await asyncio.get_running_loop().create_server(create, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], made
    finally:
        server.close()
        for transport in made:
            if not transport.is_closing():
                transport.abort()
        await asyncio.sleep(0.05)


def trust(files: Files, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.certificate))
    context.check_hostname = False
    for name, value in options.items():
        setattr(context, name, value)
    return context


async def talk(port: int, context: ssl.SSLContext, said: bytes = b"hello") -> tuple[bytes, ssl.SSLObject]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="server")
    writer.write(said)
    answer = await asyncio.wait_for(reader.readexactly(len(said)), 5)
    secured = cast(ssl.SSLObject, writer.get_extra_info("ssl_object"))
    writer.close()
    return answer, secured


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "x"], "h2"), (["http/1.1"], "http/1.1"), (["x"], None), ([], None)]
)
def test_versions_and_protocols(
    version: ssl.TLSVersion, offered: list[str], chosen: str | None, tmp_path: Path
) -> None:
    async def main() -> None:
        files = create_files(tmp_path, "server")
        async with serve(TlsContext(files.certificate, files.key)) as (port, _):
            context = trust(files, maximum_version=version)
            if offered:
                context.set_alpn_protocols(offered)
            answer, secured = await talk(port, context, bytes(100_000))
            assert answer == bytes(100_000)
            assert secured.selected_alpn_protocol() == chosen
            assert Echo.last.get_extra_info("alpn_protocol") == (chosen or "")
            assert Echo.last.get_extra_info("tls_version") == secured.version() == version.name.replace("_", ".")
            assert Echo.last.get_extra_info("peername")[0] == "127.0.0.1"

    uvloop.run(main())


def test_bytes_may_come_one_at_a_time(tmp_path: Path) -> None:
    files = create_files(tmp_path, "server")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust(files).wrap_bio(incoming, outgoing, server_hostname="server")

    async def main() -> None:
        async with serve(TlsContext(files.certificate, files.key)) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)

            async def step() -> None:
                for octet in outgoing.read():
                    writer.write(bytes((octet,)))
                    await asyncio.sleep(0)
                incoming.write(await asyncio.wait_for(reader.read(65536), 5))

            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await step()
            client.write(b"hello")
            await step()
            assert client.read(100) == b"hello"
            writer.close()

    uvloop.run(main())


def test_close_is_said_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        files = create_files(tmp_path, "server")
        async with serve(TlsContext(files.certificate, files.key)) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(files), server_hostname="s")
            writer.write(b"close")
            assert await asyncio.wait_for(reader.read(-1), 5) == b"goodbye"
            assert Echo.last.is_closing()
            Echo.last.write(b"late")
            writer.close()

    uvloop.run(main())


def test_clients_need_a_certificate_where_an_authority_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        server, client, other = (create_files(tmp_path, name) for name in ("server", "client", "other"))
        context = TlsContext(server.certificate, server.key, client.certificate)
        async with serve(context) as (port, made):
            good = trust(server)
            good.load_cert_chain(client.certificate, client.key)
            await talk(port, good)
            pem = x509.load_pem_x509_certificate(client.certificate.read_bytes())
            assert Echo.last.get_extra_info("client_certificate") == pem.public_bytes(serialization.Encoding.DER)
            wrong = trust(server)
            wrong.load_cert_chain(other.certificate, other.key)
            for bad in (trust(server), wrong):
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await talk(port, bad)
            assert [bool(each.error) for each in made] == [False, True, True]

    uvloop.run(main())


def test_reload_is_for_the_connections_to_come(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = create_files(tmp_path, "old"), create_files(tmp_path, "new")
        context = TlsContext(old.certificate, old.key)
        async with serve(context) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(old), server_hostname="s")
            await talk(port, trust(old))
            with pytest.raises(OSError, match="key values mismatch"):
                context.reload(new.certificate, old.key)
            await talk(port, trust(old))
            context.reload(new.certificate, new.key)
            await talk(port, trust(new))
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(port, trust(old))
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()

    uvloop.run(main())


def test_files_of_no_use(tmp_path: Path) -> None:
    files = create_files(tmp_path, "server")
    (tmp_path / "bad").write_text("nothing of use")
    for words in (
        (tmp_path / "bad", files.key),
        (files.certificate, tmp_path / "bad"),
        (files.certificate, tmp_path / "absent"),
        (files.certificate, files.key, tmp_path / "bad"),
    ):
        with pytest.raises(OSError, match="error:"):
            TlsContext(*words)


def test_what_is_no_tls_ends_itself_alone(tmp_path: Path) -> None:
    """Plaintext, garbage, silence and a connection that is dropped in the middle: none of them reaches a protocol."""

    async def main() -> None:
        files = create_files(tmp_path, "server")
        async with serve(TlsContext(files.certificate, files.key), handshake_s=0.2) as (port, made):
            for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70_000), b""):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(client, said)
                    async with asyncio.timeout(5):
                        try:
                            while await asyncio.get_running_loop().sock_recv(client, 1000):
                                pass
                        except ConnectionError:
                            pass
            assert [each.get_protocol() for each in made] == [None] * 3
            assert [bool(each.error) for each in made] == [True, True, False]
            assert (await talk(port, trust(files)))[0] == b"hello"

    uvloop.run(main())


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's allocator holds more")
def test_thousand_abrupt_ends_leave_memory_flat(tmp_path: Path) -> None:
    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4

    async def main() -> None:
        files = create_files(tmp_path, "server")
        async with serve(TlsContext(files.certificate, files.key)) as (port, made):
            context = trust(files)

            def connect_and_drop() -> None:
                with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secured:
                    secured.sendall(b"x" * 1000)

            async def drop(count: int) -> None:
                for _ in range(count):
                    # Not by the loop's own client: that one grows.
                    await asyncio.to_thread(connect_and_drop)
                while not all(each.is_closing() for each in made):
                    await asyncio.sleep(0.01)
                made.clear()

            for _ in range(3):
                await drop(100)
            before = resident_kb()
            for _ in range(7):
                await drop(100)
            assert resident_kb() - before < 2000

    uvloop.run(main())


class Flood(asyncio.Protocol):
    """Says many things of many sizes at once, more of them whenever it is asked, and stops for nobody."""

    SIZES = (1, 100, 5_000, 20_000, 300_000, 3, 70_000)

    def __init__(self) -> None:
        self.count = self.most_waiting = self.pauses = 0

    @staticmethod
    def said(at: int) -> bytes:
        return hashlib.shake_128(at.to_bytes(4, "big")).digest(Flood.SIZES[at % len(Flood.SIZES)])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.pauses += 1

    def data_received(self, data: bytes) -> None:
        for _ in range(20):
            parts = [self.said(self.count + more) for more in range(3)]
            self.count += 3
            self.transport.writelines(parts[:2])
            self.transport.write(parts[2])
            self.most_waiting = max(self.most_waiting, self.transport.get_write_buffer_size())
        if b"end" in data:
            self.transport.close()


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_order_holds_for_whoever_reads_slowly(run: Callable[[Any], None], tmp_path: Path) -> None:
    """What the socket takes goes past the transport below, what it does not take waits there: in one order."""

    def read_slowly(port: int, context: ssl.SSLContext) -> tuple[str, int]:
        digest, count = hashlib.sha256(), 0
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            plain.settimeout(20)
            plain.connect(("127.0.0.1", port))
            with context.wrap_socket(plain) as secured:
                for word in (b"more", b"more", b"more", b"end"):
                    secured.sendall(word)
                    time.sleep(0.05)
                    digest.update(part := secured.recv(10_000))
                    count += len(part)
                while part := secured.recv(50_000):
                    digest.update(part)
                    count += len(part)
        return digest.hexdigest(), count

    async def main() -> None:
        files = create_files(tmp_path, "server")
        flood = Flood()
        async with serve(TlsContext(files.certificate, files.key), protocol=lambda: flood) as (port, _):
            digest, count = await asyncio.to_thread(read_slowly, port, trust(files))
            whole = b"".join(map(Flood.said, range(flood.count)))
            assert (digest, count) == (hashlib.sha256(whole).hexdigest(), len(whole))
            # It was not all taken at once, nor did all of it wait.
            assert 0 < flood.most_waiting < len(whole)
            assert flood.pauses > 0

    run(main())
