"""An Envoy as a delta control plane sees it: what it asks for, in which order, and what it holds.

In: responses, and when they came. Out: requests as Envoy 1.40 makes them: clusters by wildcard, the endpoints of those
that come by name, listeners once all clusters are warm, an ACK for each response, and on a new stream the versions of
all that is held. `fleet` moves the bytes on asyncio, `loadtest/envoy_user.py` on gevent.
Never: sockets, clocks, traffic. The control plane's listeners carry their routes, so nothing is asked for of RDS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from bench.real_wires.envoy_node import with_node
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast._core import digest
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

TYPES = (CLUSTER, ENDPOINT, LISTENER)
PATIENCE_S = 15.0
"""How long Envoy has a cluster wait for its endpoints (`initial_fetch_timeout`) before it goes on with those it held;
seen of Envoy 1.40 as `assignment_use_cached`."""


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
    unanswered: int = 0
    """The same, of endpoints whose acknowledgement the end of the stream may have lost."""
    given_up: int = 0
    """Clusters that waited for endpoints for `PATIENCE_S` after the stream had ended, and went on with the old ones."""
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
            "unanswered": self.unanswered,
            "given_up": self.given_up,
            "wrong_versions": self.wrong_versions,
        }


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]


Arrived = Callable[[str, str, str, Facts, float], object]
"""Told of each resource: the node's id, the resource's type, name and facts, and the second at which it came."""


class SimulatedEnvoy:
    """One Envoy, over all its streams, one at a time. Requests are serialised messages, to be sent in order."""

    __slots__ = ("_arrived", "_is_asked", "_last", "_node", "_received", "_unsure", "held", "node_id", "warming")

    def __init__(self, node_id: str, *, node: bytes, received: Received, arrived: Arrived) -> None:
        """`node` is `envoy_node.described`; the counters of `received` may be those of many."""
        self.node_id = node_id
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        """The version that is held of each resource, by type and name."""
        self.warming: set[str] = set()
        """Clusters that have come and wait for their endpoints."""
        self._is_asked: set[str] = set()
        # What the last response with endpoints had; on a new stream, what the one before may not have heard of it.
        self._last: frozenset[str] = frozenset()
        self._unsure: frozenset[str] = frozenset()
        self._received = received
        self._arrived = arrived
        self._node = node

    def is_configured(self) -> bool:
        """Whether it could serve: listeners have come, and no cluster waits for its endpoints."""
        return bool(self.held[LISTENER]) and not self.warming

    def wait_no_longer(self, names: Iterable[str]) -> None:
        """These have been warming for `PATIENCE_S`: they go on with the endpoints that they had."""
        for name in self.warming.intersection(names, self.held[ENDPOINT]):
            self._received.given_up += 1
            self.warming.discard(name)

    def opened(self) -> list[bytes]:
        """A new stream: ask for everything that was asked for already, and say what is held of it.

        Whoever opens it has `wait_no_longer` called later with what is `warming` now.
        """
        self._unsure, self._last = self._last, frozenset()
        asked, self._is_asked = self._is_asked or {CLUSTER}, set()
        return [
            self._ask(type_url, self._clusters_with_endpoints() if type_url == ENDPOINT else ())
            for type_url in TYPES
            if type_url in asked
        ]

    def receive(self, message: bytes, at: float) -> list[bytes]:
        """Take a response; its acknowledgement, and what is asked for because of it."""
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
        type_url = response.type_url
        self._count(response, len(message) + 5)
        has_new_names = self._take(response, at)
        acknowledgement = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=response.nonce)
        requests = [acknowledgement.SerializeToString()]
        if type_url == CLUSTER and (has_new_names or response.removed_resources):
            requests += self._follow_clusters(list(response.removed_resources))
        if not self.warming and LISTENER not in self._is_asked:
            requests.append(self._ask(LISTENER))
        return requests

    def _count(self, response: discovery_pb2.DeltaDiscoveryResponse, size: int) -> None:
        received = self._received
        received.bytes += size
        received.messages[response.type_url] += 1
        received.resources[response.type_url] += len(response.resources)
        received.removed += len(response.removed_resources)

    def _take(self, response: discovery_pb2.DeltaDiscoveryResponse, at: float) -> bool:
        """Hold what has come; whether there are names among it that were not held."""
        type_url = response.type_url
        held = self.held[type_url]
        has_new_names = False
        for resource in response.resources:
            known = facts(type_url, resource.resource.value)
            self._received.wrong_versions += known.version != resource.version
            self._count_repetition(type_url, resource.name, held.get(resource.name) == resource.version)
            has_new_names |= resource.name not in held
            held[resource.name] = resource.version
            if type_url == CLUSTER and known.is_eds:
                self.warming.add(resource.name)
            elif type_url == ENDPOINT:
                self.warming.discard(resource.name)
            self._arrived(self.node_id, type_url, resource.name, known, at)
        for name in response.removed_resources:
            held.pop(name, None)
        if type_url == ENDPOINT:
            self._last = frozenset(resource.name for resource in response.resources)
        return has_new_names

    def _count_repetition(self, type_url: str, name: str, is_held: bool) -> None:
        if is_held and type_url == ENDPOINT and name in self.warming:
            self._received.for_warming += 1
        elif is_held and type_url == ENDPOINT and name in self._unsure:
            self._received.unanswered += 1
            self._unsure -= {name}
        elif is_held:
            self._received.held_already += 1

    def _clusters_with_endpoints(self) -> list[str]:
        return [*dict.fromkeys([*self.held[ENDPOINT], *self.warming])]

    def _follow_clusters(self, removed: list[str]) -> list[bytes]:
        """Ask for the endpoints of clusters that are new, and no more for those that have gone."""
        new = [name for name in sorted(self.warming) if name not in self.held[ENDPOINT]]
        gone = [name for name in removed if name in self.held[ENDPOINT]]
        for name in gone:
            del self.held[ENDPOINT][name]
        self.warming.difference_update(removed)
        return [self._ask(ENDPOINT, new, gone)] if new or gone else []

    def _ask(self, type_url: str, subscribe: Sequence[str] = (), unsubscribe: Sequence[str] = ()) -> bytes:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=subscribe, resource_names_unsubscribe=unsubscribe
        )
        if type_url not in self._is_asked:
            request.initial_resource_versions.update(self.held[type_url])
        is_first = not self._is_asked
        self._is_asked.add(type_url)
        message = request.SerializeToString()
        # Only the first request of a stream carries the node.
        return with_node(message, self.node_id, self._node) if is_first else message
