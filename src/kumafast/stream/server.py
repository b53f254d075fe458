"""The xDS server: snapshots of a cache, streamed to Envoys by gRPC. The only file that knows grpc.

In: a `SnapshotCache`, connections. Out: streams of both variants, aggregated and of each type, until it is stopped.
Never: rules of the protocol, or where snapshots come from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

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
from kumafast.stream.ads import AdsStream, NodeKey, key_of
from kumafast.stream.messages import ProtocolError, Variant
from kumafast.stream.observer import NodeObserver
from kumafast.stream.port import HttpProtocol, Port, TlsFiles

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

_OPTIONS = (
    # A reconnect in delta carries a version for each resource, and a set of 10,000 clusters is one message (rule 6).
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Clients may ping as often as they like, on idle connections too.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

_Handler = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


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
    ) -> None:
        """`http_protocol` makes a protocol for each connection that is not HTTP/2; without it they are told 404.

        `node_key` says under which key a node's snapshot is in the cache: by default its id, else cluster, else `*`.
        """
        self._cache = cache
        self._observer = observer
        self._instance_id = instance_id
        self._http_protocol = http_protocol
        self._node_key = node_key
        self._streams: set[AdsStream] = set()
        self._directory: Path | None = None
        self._grpc: Any = None
        self._port: Port | None = None

    @property
    def stream_count(self) -> int:
        """How many streams there are now."""
        return len(self._streams)

    async def start(self, host: str, port: int, *, tls: TlsFiles | None = None) -> int:
        """Open the port, in plaintext without `tls`; returns its number, which matters where `port` is 0.

        Raises OSError where the port is taken or the certificate cannot be read; then nothing runs.
        """
        # The socket between the port and gRPC is nobody else's: mkdtemp makes the directory 0700.
        self._directory = Path(tempfile.mkdtemp(prefix="kumafast-"))
        socket = self._directory / "xds.sock"
        try:
            self._grpc = grpc.aio.server(options=_OPTIONS)
            self._grpc.add_generic_rpc_handlers(tuple(self._handlers()))
            self._grpc.add_insecure_port(f"unix:{socket}")
            await self._grpc.start()
            self._port = Port(grpc_socket=socket, http_protocol=self._http_protocol)
            return await self._port.open(host, port, tls=tls)
        except BaseException:
            await self.stop(0)
            raise

    async def stop(self, grace_s: float) -> None:
        """End every stream with UNAVAILABLE, so that clients reconnect at once (rule 7); cut off what lasts longer."""
        if self._port is not None:
            self._port.close()
        for stream in tuple(self._streams):
            stream.end()
        if self._grpc is not None:
            await self._grpc.stop(grace_s)
            self._grpc = None
        if self._port is not None:
            self._port.abort()
            self._port = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _handlers(self) -> list[Any]:
        handlers = []
        for service, sotw, delta, type_url in _SERVICES:
            methods = {
                method: grpc.stream_stream_rpc_method_handler(self._handler(variant, type_url))
                for method, variant in ((sotw, Variant.SOTW), (delta, Variant.DELTA))
                if method
            }
            handlers.append(grpc.method_handlers_generic_handler(f"envoy.service.{service}", methods))
        return handlers

    def _handler(self, variant: Variant, type_url: str | None) -> _Handler:
        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            stream = AdsStream(
                requests,
                context.write,
                variant=variant,
                type_url=type_url,
                cache=self._cache,
                observer=self._observer,
                instance_id=self._instance_id,
                node_key=self._node_key,
            )
            self._streams.add(stream)
            try:
                await stream.run()
            except ProtocolError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            finally:
                self._streams.discard(stream)
            if stream.is_ended:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")

        return handle
