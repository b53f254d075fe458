"""The xDS server: snapshots of a cache, streamed to Envoys by gRPC on the compiled wire.

In: a `SnapshotCache`, connections. Out: streams of both variants, aggregated and of each type, until it is stopped.
Never: rules of the protocol, or where snapshots come from.
"""

from __future__ import annotations

import asyncio
import logging

from kumafast._core import Protocol, Stream, Tally
from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.resource import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LB_ENDPOINT,
    LISTENER,
    ROUTE,
    RUNTIME,
    SCOPED_ROUTE,
    SECRET,
    VIRTUAL_HOST,
)
from kumafast.stream.ads import Fleet, NodeKey, key_of
from kumafast.stream.driver import GrpcProtocol, Handler, Opener, Status
from kumafast.stream.messages import ProtocolError, Variant
from kumafast.stream.observer import NodeObserver
from kumafast.stream.port import HttpProtocol, Port, TlsFiles

_LOG = logging.getLogger(__name__)

# Service, the names of its SotW and delta methods (empty where it has none), the type that it serves (None: any).
_SERVICES: tuple[tuple[str, str, str, str | None], ...] = (
    ("discovery.v3.AggregatedDiscoveryService", "StreamAggregatedResources", "DeltaAggregatedResources", None),
    ("cluster.v3.ClusterDiscoveryService", "StreamClusters", "DeltaClusters", CLUSTER),
    ("endpoint.v3.EndpointDiscoveryService", "StreamEndpoints", "DeltaEndpoints", ENDPOINT),
    ("endpoint.v3.LocalityEndpointDiscoveryService", "", "DeltaLocalityEndpoints", LB_ENDPOINT),
    ("listener.v3.ListenerDiscoveryService", "StreamListeners", "DeltaListeners", LISTENER),
    ("route.v3.RouteDiscoveryService", "StreamRoutes", "DeltaRoutes", ROUTE),
    ("route.v3.ScopedRoutesDiscoveryService", "StreamScopedRoutes", "DeltaScopedRoutes", SCOPED_ROUTE),
    ("route.v3.VirtualHostDiscoveryService", "", "DeltaVirtualHosts", VIRTUAL_HOST),
    ("secret.v3.SecretDiscoveryService", "StreamSecrets", "DeltaSecrets", SECRET),
    ("runtime.v3.RuntimeDiscoveryService", "StreamRuntime", "DeltaRuntime", RUNTIME),
    ("extension.v3.ExtensionConfigDiscoveryService", "StreamExtensionConfigs", "DeltaExtensionConfigs", EXTENSION),
)

# A reconnect in delta carries a version for each resource: a hundred thousand are several megabytes (rule 6).
REQUEST_BYTES_MAX = 64 << 20
_STOP_STEP_S = 0.005


class XdsServer:
    """Streams the snapshots of a cache to Envoys and gRPC clients. It can be used without the rest of kumafast.

    >>> import asyncio
    >>> from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
    >>> async def main() -> bool:
    ...     cache = SnapshotCache()
    ...     server = XdsServer(cache)
    ...     port = await server.start("127.0.0.1", 0)
    ...     # The key is the id of the client's node. Set it again whenever its resources change.
    ...     cluster = XdsResource("type.googleapis.com/envoy.config.cluster.v3.Cluster", "backend", b"")
    ...     cache.set("web-1", Snapshot.of(cluster))
    ...     await server.stop(1.0)
    ...     return port > 0
    >>> asyncio.run(main())
    True
    """

    def __init__(
        self,
        cache: SnapshotCache,
        *,
        observer: NodeObserver | None = None,
        instance_id: str = "kumafast",
        http_protocol: HttpProtocol | None = None,
        node_key: NodeKey = key_of,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        """`http_protocol` makes a protocol for each connection that is not HTTP/2; without it they are told 404.

        `node_key` says under which key a node's snapshot is in the cache: by default its id, else cluster, else `*`.
        A request of more than `request_bytes_max` ends its stream with RESOURCE_EXHAUSTED.
        """
        self._http_protocol = http_protocol
        self._fleet = Fleet(cache, observer=observer, instance_id=instance_id, finish=_finish, node_key=node_key)
        self._request_bytes_max = request_bytes_max
        self._handlers: dict[str, Handler] = {}
        self._openers = self._create_openers()
        self._connections: set[GrpcProtocol] = set()
        self._port: Port | None = None

    @property
    def stream_count(self) -> int:
        """How many streams there are now."""
        return len(self._fleet)

    @property
    def tally(self) -> Tally:
        """How many responses were sent, acknowledged and rejected, and how many moves were worked out for that."""
        return self._fleet.tally

    async def start(self, host: str, port: int, *, tls: TlsFiles | None = None) -> int:
        """Open the port, in plaintext without `tls`; returns its number, which matters where `port` is 0.

        Raises OSError where the port is taken or the certificate cannot be read; then nothing runs.
        """
        opening = Port(http2_protocol=self._create_protocol, http_protocol=self._http_protocol)
        taken = await opening.open(host, port, tls=tls)
        self._port = opening
        return taken

    async def stop(self, grace_s: float) -> None:
        """End every stream with UNAVAILABLE, so that clients reconnect at once (rule 7); cut off what lasts longer."""
        if self._port is None:
            return
        port, self._port = self._port, None
        port.close()
        port.abort()
        self._end_streams()
        for connection in tuple(self._connections):
            connection.drain()
        deadline = asyncio.get_running_loop().time() + grace_s
        while self._connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_STOP_STEP_S)
        for connection in tuple(self._connections):
            connection.abort()
        while self._connections:
            await asyncio.sleep(0)
        self._fleet.stop()

    def _end_streams(self) -> None:
        for connection in tuple(self._connections):
            for receiver in connection.served:
                if isinstance(receiver, Stream):
                    _end(receiver, Status.UNAVAILABLE, "the control plane is stopping")

    def _create_protocol(self) -> GrpcProtocol:
        return GrpcProtocol(
            self._handlers,
            connections=self._connections,
            message_bytes_max=self._request_bytes_max,
            openers=self._openers,
        )

    def _create_openers(self) -> dict[str, Opener]:
        return {
            f"/envoy.service.{service}/{method}": self._opener(variant, type_url)
            for service, sotw, delta, type_url in _SERVICES
            for method, variant in ((sotw, Variant.SOTW), (delta, Variant.DELTA))
            if method
        }

    def _opener(self, variant: Variant, type_url: str | None) -> Opener:
        def open_stream(connection: GrpcProtocol, stream_id: int, timeout_s: float | None) -> Stream:
            stream = self._fleet.open(connection, stream_id, variant=variant, type_url=type_url)
            if timeout_s is not None:
                stream.timer = asyncio.get_running_loop().call_later(timeout_s, _expire, stream)
            return stream

        return open_stream


def _expire(stream: Stream) -> None:
    _end(stream, Status.DEADLINE_EXCEEDED, "the client's deadline has passed")


def _end(stream: Stream, status: Status, message: str) -> None:
    connection: GrpcProtocol = stream.connection
    if stream.close():
        connection.end(stream.id, status, message)


def _finish(connection: Protocol, stream_id: int, error: Exception | None) -> None:
    """End a stream on its connection, which the fleet knows nothing of."""
    assert isinstance(connection, GrpcProtocol)
    if error is None:
        connection.end(stream_id, Status.OK)
    elif isinstance(error, ProtocolError):
        connection.end(stream_id, Status.INVALID_ARGUMENT, str(error))
    else:
        _LOG.error("a stream failed", exc_info=error)
        connection.end(stream_id, Status.INTERNAL, "the server failed")
