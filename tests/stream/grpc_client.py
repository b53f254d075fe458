"""A real gRPC client of the xDS server, for tests: grpcio on loopback, with messages of the protobuf library.

In: a server's port. Out: streams of either variant. Never: kumafast's own decoding or encoding.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.service.discovery.v3 import discovery_pb2

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER
from kumafast.stream import TlsFiles, XdsServer

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
TIMEOUT_S = 10.0


def cluster(name: str, size: int = 1) -> XdsResource:
    return XdsResource(CLUSTER, name, b"x" * size)


@dataclass
class Recorder:
    """An observer that writes down what it is told."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    opened: dict[str, Node] = field(default_factory=dict)
    open_count: int = 0

    def stream_opened(self, stream_id: str, node: Node) -> None:
        assert stream_id not in self.opened
        self.opened[stream_id] = node
        self.open_count += 1
        self.events.append(("opened", node.id))

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        self.events.append(("sent", type_url, version, size))

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        self.events.append(("acknowledged", type_url, version))

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        self.events.append(("rejected", type_url, version, message))

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        self.events.append(("synced", snapshot))

    def stream_closed(self, stream_id: str) -> None:
        self.open_count -= 1
        self.events.append(("closed",))


class Stream:
    """One stream; `read` fails after a time rather than wait for ever."""

    def __init__(self, call: Any, request: Any, *, node_id: str) -> None:
        self.call = call
        self._request = request
        self._node_id: str | None = node_id

    async def write(self, type_url: str = CLUSTER, **fields: Any) -> None:
        request = self._request(type_url=type_url)
        if self._node_id is not None:
            request.node.id, self._node_id = self._node_id, None
        error = fields.pop("error", None)
        if error is not None:
            request.error_detail.message = error
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(request, name).extend(value)
            elif isinstance(value, dict):
                getattr(request, name).update(value)
            else:
                setattr(request, name, value)
        await self.call.write(request.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        await self.call.write(data)

    async def read(self, timeout_s: float = TIMEOUT_S) -> Any:
        data = await asyncio.wait_for(self.call.read(), timeout_s)
        if not isinstance(data, bytes):  # grpc.aio.EOF
            raise EOFError
        kind = discovery_pb2.DeltaDiscoveryResponse if self.is_delta else discovery_pb2.DiscoveryResponse
        return kind.FromString(data)

    async def is_silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for a while; the stream is of no use afterwards."""
        try:
            await self.read(seconds)
        except TimeoutError:
            return True
        return False

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await asyncio.wait_for(self.call.code(), TIMEOUT_S)
        return code

    @property
    def is_delta(self) -> bool:
        return bool(self._request is discovery_pb2.DeltaDiscoveryRequest)


def open_stream(
    channel: grpc.aio.Channel, method: str = ADS + "DeltaAggregatedResources", node_id: str = "n"
) -> Stream:
    is_delta = "/Delta" in method
    kind = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
    open_call: Any = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
    return Stream(open_call(), kind, node_id=node_id)


@asynccontextmanager
async def serve(
    cache: SnapshotCache, *, tls: TlsFiles | None = None, **options: Any
) -> AsyncIterator[tuple[XdsServer, int]]:
    """A server on a free port of the loopback."""
    server = XdsServer(cache, **options)
    port = await server.start("127.0.0.1", 0, tls=tls)
    try:
        yield server, port
    finally:
        await server.stop(0)


def connect(port: int, *, ca: bytes | None = None) -> grpc.aio.Channel:
    # Without a subchannel pool of its own each channel would share one connection with the others.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    if ca is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    credentials = grpc.ssl_channel_credentials(ca)
    options = [*options, ("grpc.ssl_target_name_override", "localhost")]  # type: ignore[list-item]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


def create_certificate(directory: Path) -> TlsFiles:
    """A self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(certificate=directory / "server.crt", key=directory / "server.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
