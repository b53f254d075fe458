"""An Envoy as a delta control plane sees it: what it asks for, in which order, and what it holds.

In: responses. Out: requests as Envoy 1.40 makes them: clusters by wildcard, the endpoints of those that come by name,
listeners once all clusters are warm, an ACK for each response, and on a new stream the versions of all that is held.
Never: traffic. The control plane's listeners carry their routes, so nothing is asked for of RDS.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from bench.real_wires.client_wire import ClientWire
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast._core import digest
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

TYPES = (CLUSTER, ENDPOINT, LISTENER)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a resource says, as far as anybody here wants to know."""

    version: str
    """The version that this content must have."""
    is_eds: bool = False
    connect_timeout_ns: int = 0
    addresses: frozenset[str] = frozenset()


@lru_cache(maxsize=65_536)
def facts(type_url: str, body: bytes) -> Facts:
    """Read a resource; what many hold is read once."""
    version = digest(body).hex()
    if type_url == CLUSTER:
        cluster = cluster_pb2.Cluster.FromString(body)
        is_eds = cluster.type == cluster_pb2.Cluster.EDS
        return Facts(version, is_eds=is_eds, connect_timeout_ns=cluster.connect_timeout.ToNanoseconds())
    if type_url == ENDPOINT:
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
        every = (endpoint for locality in assignment.endpoints for endpoint in locality.lb_endpoints)
        return Facts(version, addresses=frozenset(item.endpoint.address.socket_address.address for item in every))
    return Facts(version)


@dataclass(slots=True)
class Received:
    """What has come, of all Envoys together."""

    bytes: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    resources: Counter[str] = field(default_factory=Counter)
    removed: int = 0
    held_already: int = 0
    """Resources that came in the version that was held, and for no reason."""
    for_warming: int = 0
    """The same, of endpoints that had to come again because their cluster did."""
    wrong_versions: int = 0

    def as_document(self) -> dict[str, object]:
        """All of it as plain data."""
        return {
            "bytes": self.bytes,
            "messages": {_short(key): count for key, count in sorted(self.messages.items())},
            "resources": {_short(key): count for key, count in sorted(self.resources.items())},
            "removed": self.removed,
            "held_already": self.held_already,
            "for_warming": self.for_warming,
            "wrong_versions": self.wrong_versions,
        }


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]


Arrived = Callable[["SimulatedEnvoy", str, str, Facts, float], None]
"""Told of each resource: which Envoy, its type, name and facts, and the monotonic second."""


class SimulatedEnvoy:
    """One Envoy with its connection."""

    __slots__ = (
        "_arrived",
        "_is_asked",
        "_node",
        "_received",
        "_streams",
        "closed_event",
        "held",
        "node_id",
        "warming",
        "wire",
    )

    def __init__(
        self, node_id: str, *, received: Received, arrived: Arrived, metadata: dict[str, object], streams: Counter[str]
    ) -> None:
        self.node_id = node_id
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        """The version that is held of each resource, by type and name."""
        self.warming: set[str] = set()
        """Clusters that have come and wait for their endpoints."""
        self.wire: ClientWire | None = None
        self.closed_event = asyncio.Event()
        self._is_asked: set[str] = set()
        self._received = received
        self._arrived = arrived
        self._streams = streams
        self._node = discovery_pb2.DeltaDiscoveryRequest()
        self._node.node.id = node_id
        self._node.node.user_agent_name = "envoy"
        self._node.node.metadata.update(metadata)

    # The wire's side.

    def opened(self) -> None:
        """Ask for everything that is asked for already, and say what is held of it."""
        self._streams["opened"] += 1
        asked, self._is_asked = self._is_asked or {CLUSTER}, set()
        for type_url in TYPES:
            if type_url in asked:
                self._ask(type_url, list(self._clusters_with_endpoints()) if type_url == ENDPOINT else ())

    def closed(self) -> None:
        """The stream is over; what was received stays."""
        self._streams["closed"] += 1
        self.wire = None
        self.closed_event.set()

    def received(self, message: bytes) -> None:
        """Take a response, acknowledge it and ask for what follows from it."""
        now = time.monotonic()
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
        type_url = response.type_url
        received, held = self._received, self.held[type_url]
        received.bytes += len(message) + 5
        received.messages[type_url] += 1
        received.resources[type_url] += len(response.resources)
        received.removed += len(response.removed_resources)
        has_new_names = False
        for resource in response.resources:
            known = facts(type_url, resource.resource.value)
            received.wrong_versions += known.version != resource.version
            self._count_repetition(type_url, resource.name, held.get(resource.name) == resource.version)
            has_new_names |= resource.name not in held
            held[resource.name] = resource.version
            if type_url == CLUSTER and known.is_eds:
                self.warming.add(resource.name)
            elif type_url == ENDPOINT:
                self.warming.discard(resource.name)
            self._arrived(self, type_url, resource.name, known, now)
        for name in response.removed_resources:
            held.pop(name, None)
        self._send(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=response.nonce))
        if type_url == CLUSTER and (has_new_names or response.removed_resources):
            self._follow_clusters(list(response.removed_resources))
        if not self.warming and LISTENER not in self._is_asked:
            self._ask(LISTENER)

    def _count_repetition(self, type_url: str, name: str, is_held: bool) -> None:
        if is_held and type_url == ENDPOINT and name in self.warming:
            self._received.for_warming += 1
        elif is_held:
            self._received.held_already += 1

    def _clusters_with_endpoints(self) -> list[str]:
        return [*dict.fromkeys([*self.held[ENDPOINT], *self.warming])]

    def _follow_clusters(self, removed: list[str]) -> None:
        """Ask for the endpoints of clusters that are new, and no more for those that have gone."""
        new = [name for name in sorted(self.warming) if name not in self.held[ENDPOINT]]
        gone = [name for name in removed if name in self.held[ENDPOINT]]
        for name in gone:
            del self.held[ENDPOINT][name]
        self.warming.difference_update(removed)
        if new or gone:
            self._ask(ENDPOINT, new, gone)

    def _ask(self, type_url: str, subscribe: list[str] | tuple[()] = (), unsubscribe: list[str] | None = None) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=subscribe, resource_names_unsubscribe=unsubscribe or ()
        )
        if type_url not in self._is_asked:
            request.initial_resource_versions.update(self.held[type_url])
        if not self._is_asked:
            # Only the first request of a stream carries the node.
            request.node.CopyFrom(self._node.node)
        self._is_asked.add(type_url)
        self._send(request)

    def _send(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if self.wire is not None:
            self.wire.send(request.SerializeToString())

    # The harness' side.

    async def connect(self, host: str, port: int) -> None:
        """Open the stream. Raises OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        self.closed_event.clear()
        wire = ClientWire(self)
        self.wire = wire
        try:
            await loop.create_connection(lambda: wire, host, port)
        except OSError:
            self.wire = None
            raise
