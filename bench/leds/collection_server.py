"""A control plane with one service, to try out what Envoy makes of endpoints as a collection (LEDS).

In: endpoints, connections of Envoys in delta ADS. Out: one cluster, its endpoints as one ClusterLoadAssignment or as a
collection of `LbEndpoint`s, under names as `Naming` says; what was sent, counted. Never: kumafast's own session, whose
rules are not what is tried here.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast._core import SnapshotDigest
from kumafast.generation.endpoints import lb_endpoint
from kumafast.generation.proxy import Endpoint
from kumafast.snapshot import EndpointEntry, LoadAssignment, XdsResource, framing
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LB_ENDPOINT
from kumafast.stream.driver import Call, GrpcProtocol

SERVICE = "backend"
PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
AUTHORITY = "xdstp:///envoy.config.endpoint.v3.LbEndpoint"


class Naming(enum.Enum):
    """What a client is sent for its endpoints, and by what name."""

    EDS = "eds"
    """No collection: all endpoints in the ClusterLoadAssignment."""
    FIXED = "fixed"
    """A collection whose name is always the same."""
    STREAM = "stream"
    """A collection whose name is new for each stream."""
    CONTENT = "content"
    """A collection whose name goes on over streams, as long as a client that comes back has all of it: the version of
    its ClusterLoadAssignment says of which content."""


def endpoint(number: int) -> Endpoint:
    """An endpoint as a service's are, each at an address of its own."""
    tags = (("kuma.io/protocol", "http"), ("kuma.io/zone", "default"), ("version", f"v{number % 3}"))
    return Endpoint(
        address=f"127.{1 + (number >> 14)}.{number >> 7 & 127}.{1 + (number & 127)}",
        port=8080,
        tags=tags,
        labels=(),
        zone="default",
    )


@dataclass(slots=True)
class Sent:
    """What has gone out."""

    bytes: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    resources: Counter[str] = field(default_factory=Counter)


class CollectionServer:
    """Serves the service at one port. It can be stopped and started again; then it remembers nothing of its clients."""

    def __init__(self, naming: Naming, numbers: Iterable[int]) -> None:
        self.naming = naming
        self.sent = Sent()
        self.refusals: list[str] = []
        self.port = 0
        self.streams: set[_Stream] = set()
        self.endpoints: dict[int, XdsResource] = {}
        self.epoch = ""
        self.assignment = LoadAssignment(SERVICE)
        self._digest = SnapshotDigest()
        self._connections: set[GrpcProtocol] = set()
        self._server: asyncio.Server | None = None
        for number in numbers:
            self._put(number)

    async def start(self) -> None:
        """Listen, at the port of before if there was one."""
        self.epoch = uuid.uuid4().hex[:8]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: GrpcProtocol({PATH: self._serve}, connections=self._connections, message_bytes_max=1 << 26),
            "127.0.0.1",
            self.port,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End everything without a word."""
        assert self._server is not None
        self._server.close()
        for connection in tuple(self._connections):
            connection.abort()
        while self._connections or self.streams:
            await asyncio.sleep(0.001)
        self._server = None

    # What there is.

    @property
    def version(self) -> str:
        """Of the whole collection."""
        return str(self._digest.value.hex())

    def _entry(self, resource: XdsResource, number: int) -> EndpointEntry:
        return EndpointEntry.of(zone="default", order=number, lb_endpoint=resource.body)

    def _put(self, number: int) -> None:
        resource = XdsResource(LB_ENDPOINT, str(number), lb_endpoint(endpoint(number)))
        self.endpoints[number] = resource
        self._digest.add(resource.name, resource.version)
        self.assignment.alter([], [self._entry(resource, number)])

    async def put(self, number: int) -> None:
        """An endpoint comes, and whoever is connected is told."""
        self._put(number)
        await self._tell([number], [])

    async def remove(self, number: int) -> None:
        """An endpoint goes."""
        resource = self.endpoints.pop(number)
        self._digest.remove(resource.name, resource.version)
        self.assignment.alter([self._entry(resource, number)], [])
        await self._tell([], [number])

    async def change_cluster(self, *, renames: bool) -> None:
        """The cluster is another, with the same endpoints; they go out again after it, `renames` under a new name."""
        for stream in tuple(self.streams):
            await stream.change_cluster(renames=renames)

    async def _tell(self, put: list[int], gone: list[int]) -> None:
        if not self.streams:
            return
        if self.naming is Naming.EDS:
            (assignment,) = self.assignment.layer()
            for stream in tuple(self.streams):
                await stream.send(ENDPOINT, [(assignment.name, assignment.version, assignment.body)])
            return
        for stream in tuple(self.streams):
            members = [self.member(stream.epoch, number) for number in put]
            await stream.send(LB_ENDPOINT, members, [collection_name(stream.epoch, number) for number in gone])
            if self.naming is Naming.CONTENT:
                await stream.send(ENDPOINT, [self.pointer(stream.epoch)])

    def member(self, epoch: str, number: int) -> tuple[str, str, bytes]:
        """One endpoint of the collection as it is named in an epoch: name, version, body."""
        resource = self.endpoints[number]
        return collection_name(epoch, number), resource.version, resource.body

    def pointer(self, epoch: str) -> tuple[str, str, bytes]:
        """The ClusterLoadAssignment that names the collection."""
        assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=SERVICE)
        locality = assignment.endpoints.add()
        locality.locality.zone = "default"
        locality.leds_cluster_locality_config.CopyFrom(
            endpoint_components_pb2.LedsClusterLocalityConfig(
                leds_config=config_source_pb2.ConfigSource(
                    ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
                ),
                leds_collection_name=collection_name(epoch, "*"),
            )
        )
        version = f"{epoch}.{self.version}" if self.naming is Naming.CONTENT else epoch
        return SERVICE, version, assignment.SerializeToString(deterministic=True)

    async def _serve(self, call: Call) -> None:
        stream = _Stream(self, call)
        self.streams.add(stream)
        try:
            await stream.run()
        finally:
            self.streams.discard(stream)


def collection_name(epoch: str, member: object) -> str:
    """The name of a member, or with `*` of the whole."""
    return f"{AUTHORITY}/{epoch}/{SERVICE}/{member}"


def _cluster(*, connect_timeout_s: int) -> bytes:
    cluster = cluster_pb2.Cluster(name=SERVICE, type=cluster_pb2.Cluster.EDS)
    cluster.connect_timeout.seconds = connect_timeout_s
    cluster.eds_cluster_config.eds_config.ads.SetInParent()
    cluster.eds_cluster_config.eds_config.resource_api_version = config_source_pb2.V3
    encoded: bytes = cluster.SerializeToString(deterministic=True)
    return encoded


class _Stream:
    """One client."""

    def __init__(self, server: CollectionServer, call: Call) -> None:
        self._server = server
        self._call = call
        self._nonces = itertools.count(1)
        naming = server.naming
        self.epoch = {Naming.FIXED: "fixed", Naming.STREAM: uuid.uuid4().hex[:8]}.get(naming, server.epoch)
        self._is_held = False

    async def run(self) -> None:
        async for data in self._call:
            request = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
            if request.HasField("error_detail"):
                self._server.refusals.append(request.error_detail.message)
            if not request.response_nonce:
                await self._answer(request)

    async def _answer(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        held = dict(request.initial_resource_versions)
        if request.type_url == CLUSTER and "1" not in held.values():
            await self.send(CLUSTER, [(SERVICE, "1", _cluster(connect_timeout_s=1))])
        elif request.type_url == ENDPOINT and request.resource_names_subscribe:
            await self._answer_endpoints(held.get(SERVICE, ""))
        elif request.type_url == LB_ENDPOINT and self._names_collection(request) and not self._is_held:
            server = self._server
            await self.send(LB_ENDPOINT, [server.member(self.epoch, number) for number in server.endpoints])

    async def change_cluster(self, *, renames: bool) -> None:
        if renames:
            self.epoch = uuid.uuid4().hex[:8]
        await self.send(CLUSTER, [(SERVICE, "2", _cluster(connect_timeout_s=2))])
        await self.send(ENDPOINT, [self._server.pointer(self.epoch)])

    def _names_collection(self, request: discovery_pb2.DeltaDiscoveryRequest) -> bool:
        # A client that comes back asks for the collection of its last stream too, before it has been told of the new.
        return collection_name(self.epoch, "*") in request.resource_names_subscribe

    async def _answer_endpoints(self, held: str) -> None:
        server = self._server
        if server.naming is Naming.EDS:
            (assignment,) = server.assignment.layer()
            if held != assignment.version:
                await self.send(ENDPOINT, [(SERVICE, assignment.version, assignment.body)])
            return
        epoch, _, version = held.partition(".")
        if server.naming is Naming.CONTENT and version == server.version:
            # It has all of it, under the name of that epoch.
            self.epoch, self._is_held = epoch, True
            return
        if server.naming is Naming.CONTENT and epoch == self.epoch:
            self.epoch = uuid.uuid4().hex[:8]
        await self.send(ENDPOINT, [server.pointer(self.epoch)])

    async def send(self, type_url: str, resources: list[tuple[str, str, bytes]], removed: Iterable[str] = ()) -> None:
        """Send one response."""
        parts = []
        for name, version, body in resources:
            parts += [framing.delta_head(type_url, name, version, len(body)), body]
        parts += [framing.text(4, type_url), framing.text(5, str(next(self._nonces)))]
        parts += [framing.text(6, name) for name in removed]
        data = b"".join(parts)
        sent = self._server.sent
        sent.bytes += len(data) + 5
        sent.messages[type_url] += 1
        sent.resources[type_url] += len(resources)
        await self._call.write(data)
