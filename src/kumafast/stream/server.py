"""The xDS server: snapshots of a cache, streamed to Envoys by gRPC on the compiled wire.

In: a `SnapshotCache`, connections. Out: streams of both variants, aggregated and of each type, until it is stopped.
Never: rules of the protocol, or where snapshots come from.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from kumafast._core import Poller, Protocol, Stream, Tally, Turns
from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.node import key_of
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
from kumafast.stream.admission import Authenticate, UnauthenticatedError
from kumafast.stream.ads import Fleet, NodeKey
from kumafast.stream.driver import Call, CallError, GrpcProtocol, Handler, Opener, Status
from kumafast.stream.http2_requests import AsgiApp, AsgiRequests
from kumafast.stream.messages import ExhaustedError, ProtocolError, Variant
from kumafast.stream.observer import NodeObserver
from kumafast.stream.port import HttpProtocol, Port
from kumafast.stream.silence import Silence
from kumafast.stream.tls import TlsFiles

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
_DRAIN_STEP_S = 0.01
# Of the connections that bring much at once, so many go on in one turn of the loop, and none after so long.
_BEHIND_EACH_TURN = 8
_BEHIND_S = 0.001
# So many sockets are read in one turn of the loop, and none after so long.
_READ_EACH_TURN = 256
_READ_S = 0.001


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
        http_app: AsgiApp | None = None,
        node_key: NodeKey = key_of,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        handlers: Mapping[str, Handler] | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        """`http_protocol` makes a protocol for each connection that is not HTTP/2, `http_app` answers what is no gRPC
        over HTTP/2; without them clients are told 404.

        `node_key` says under which key a node's snapshot is in the cache: by default its id, else cluster, else `*`.
        A request of more than `request_bytes_max` ends its stream with RESOURCE_EXHAUSTED.
        `handlers` serve further methods of gRPC on the same port, by path; when the server stops they are told that no
        more requests come.
        `authenticate` judges each stream before its node is known to anybody; without it all are let in.
        """
        self._http_protocol = http_protocol
        self._http_handler = None if http_app is None else AsgiRequests(http_app).serve
        self._fleet = Fleet(
            cache,
            observer=observer,
            instance_id=instance_id,
            finish=_finish,
            node_key=node_key,
            authenticate=authenticate,
        )
        self._request_bytes_max = request_bytes_max
        self._handlers = {path: self._in_order(handler) for path, handler in (handlers or {}).items()}
        self._other_calls: set[Call] = set()
        self._openers = self._create_openers()
        self._connections: set[GrpcProtocol] = set()
        self._behind = Turns(_BEHIND_EACH_TURN, _BEHIND_S)
        self._silence = Silence()
        self._poller = Poller(_READ_EACH_TURN, _READ_S)
        self._port: Port | None = None

    @property
    def stream_count(self) -> int:
        """How many streams there are now."""
        return len(self._fleet)

    @property
    def tally(self) -> Tally:
        """How many responses were sent, acknowledged and rejected, and how many moves were worked out for that."""
        return self._fleet.tally

    async def start(self, host: str, port: int, *, tls: TlsFiles | None = None, is_shared: bool = False) -> int:
        """Open the port, in plaintext without `tls`; returns its number, which matters where `port` is 0.

        A port that is shared may be listened on by other processes of this user, which the kernel deals connections to.
        Raises OSError where the port is taken or the certificate cannot be read; then nothing runs.
        """
        # There before the first connection, which may ask for the certificate.
        self._port = Port(http2_protocol=self._create_protocol, http_protocol=self._http_protocol, poller=self._poller)
        try:
            return await self._port.open(host, port, tls=tls, is_shared=is_shared)
        except BaseException:
            self._port = None
            raise

    @property
    def certificate_pem(self) -> bytes | None:
        """The certificate that new connections are shown, with its chain; None without TLS."""
        tls = None if self._port is None else self._port.tls
        return None if tls is None else tls.certificate_pem

    def reload_certificate(self) -> bool:
        """Read the files of TLS anew for the connections to come, which else happens soon after they have changed.

        False where there is no TLS, or where they are of no use: that is logged, and all stays as it is.
        """
        if self._port is None or self._port.tls is None:
            return False
        return self._port.tls.reload()

    async def drain(self, spread_s: float, *, chance: random.Random | None = None) -> None:
        """Take no more connections, and end those that there are in any order, evenly over so many seconds.

        Clients that come back at once do so at different times, elsewhere. `chance` deals the order.
        """
        if self._port is None:
            return
        self._port.close()
        connections = list(self._connections)
        (chance or random.Random()).shuffle(connections)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, connection in enumerate(connections):
            wait_s = began + spread_s * number / len(connections) - loop.time()
            if wait_s > 0:
                await asyncio.sleep(max(wait_s, _DRAIN_STEP_S))
            if connection in self._connections:
                self._send_away(connection, "the control plane is stopping")

    async def shed(self, count: int, *, spread_s: float, chance: random.Random | None = None) -> int:
        """Send away the clients of some connections, at any moments of so many seconds; how many were.

        Each is told to connect anew (GOAWAY), and its streams end: where it comes to is up to whoever is in between.
        """
        chance = chance or random.Random()
        serving = [connection for connection in self._connections if connection.served]
        chosen = chance.sample(serving, min(count, len(serving)))
        moments = sorted(chance.uniform(0, spread_s) for _ in chosen)
        began, sent = asyncio.get_running_loop().time(), 0
        for connection, moment in zip(chosen, moments, strict=True):
            wait_s = began + moment - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if connection in self._connections:
                self._send_away(connection, "this instance serves more proxies than it is to")
                sent += 1
        return sent

    async def stop(self, grace_s: float) -> None:
        """End every stream with UNAVAILABLE, so that clients reconnect at once (rule 7); cut off what lasts longer."""
        if self._port is None:
            return
        port, self._port = self._port, None
        port.close()
        port.abort()
        self._end_streams()
        for call in tuple(self._other_calls):
            call.end_received()
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
            _end_streams_of(connection, "the control plane is stopping")

    def _send_away(self, connection: GrpcProtocol, why: str) -> None:
        _end_streams_of(connection, why)
        connection.drain()

    def _create_protocol(self) -> GrpcProtocol:
        return GrpcProtocol(
            self._handlers,
            connections=self._connections,
            message_bytes_max=self._request_bytes_max,
            openers=self._openers,
            http_handler=self._http_handler,
            turns=self._behind,
            silence=self._silence,
            poller=self._poller,
        )

    def _create_openers(self) -> dict[str, Opener]:
        return {
            f"/envoy.service.{service}/{method}": self._opener(variant, type_url)
            for service, sotw, delta, type_url in _SERVICES
            for method, variant in ((sotw, Variant.SOTW), (delta, Variant.DELTA))
            if method
        }

    def _opener(self, variant: Variant, type_url: str | None) -> Opener:
        def open_stream(
            connection: GrpcProtocol, stream_id: int, headers: Mapping[str, str], timeout_s: float | None
        ) -> Stream:
            authorization = headers.get("authorization", "")
            stream = self._fleet.open(
                connection, stream_id, variant=variant, type_url=type_url, authorization=authorization
            )
            if timeout_s is not None:
                stream.timer = asyncio.get_running_loop().call_later(timeout_s, _expire, stream)
            return stream

        return open_stream

    def _in_order(self, handler: Handler) -> Handler:
        """A further method, whose calls end with the server."""

        async def handle(call: Call) -> None:
            self._other_calls.add(call)
            try:
                await handler(call)
            finally:
                self._other_calls.discard(call)
            if self._port is None:
                raise CallError(Status.UNAVAILABLE, "the control plane is stopping")

        return handle


def _expire(stream: Stream) -> None:
    _end(stream, Status.DEADLINE_EXCEEDED, "the client's deadline has passed")


def _end_streams_of(connection: GrpcProtocol, why: str) -> None:
    for receiver in connection.served:
        if isinstance(receiver, Stream):
            _end(receiver, Status.UNAVAILABLE, why)


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
    elif isinstance(error, ExhaustedError):
        connection.end(stream_id, Status.RESOURCE_EXHAUSTED, str(error))
    elif isinstance(error, UnauthenticatedError):
        connection.end(stream_id, Status.UNAUTHENTICATED, str(error))
    else:
        _LOG.error("a stream failed", exc_info=error)
        connection.end(stream_id, Status.INTERNAL, "the server failed")
