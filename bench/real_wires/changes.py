"""Changes of a regular mesh through REST: endpoints that come, move and go, a policy now and then.

In: the size of the mesh, a seed. Out: writes, each with whom it affects and how that shows there; who is waited for.
Never: the same address twice, so that what an Envoy holds tells which changes it has; nor a change of what an earlier
one has not reached everywhere, since the two may then go out as one; sockets or clocks.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.real_wires.arrivals import Awaited
from bench.real_wires.simulated_envoy import Facts
from bench.regular_mesh import OUTBOUNDS, PER_SERVICE, dataplane, name
from bench.regular_mesh import address as regular_address

from kumafast.resources.document import to_document
from kumafast.snapshot.resource import CLUSTER, ENDPOINT

POLICY_EVERY, SIDECAR_EVERY = 20, 7
INBOUND = "localhost:8080"
"""The cluster of what comes in, which every dataplane of a regular mesh has."""
EXTRAS_MAX = 40
"""From so many endpoints beyond the regular ones on, one goes for each that comes."""


@dataclass(frozen=True, slots=True)
class Write:
    """A request, whom it affects, and what then shows in which resource of theirs."""

    kind: str
    method: str
    path: str
    document: dict[str, Any] | None
    type_url: str
    resource: str
    address: str = ""
    is_there: bool = True
    timeout_ns: int = 0
    is_for_all: bool = False
    """Whether it affects every dataplane, and not the clients of the service that the resource is named after."""

    def shows(self, facts: Facts) -> bool:
        """Whether a resource has what was written."""
        if self.timeout_ns:
            return facts.connect_timeout_ns == self.timeout_ns
        return (self.address in facts.addresses) is self.is_there


class Changes:
    """Makes changes; remembers what is there."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self._size = size
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)
        self._extras: dict[str, tuple[str, str]] = {}
        self._moved: dict[int, str] = {}
        # The newest change of each resource, by its path; None from when it is thought up until it is made.
        self._newest: dict[str, Awaited | None] = {}
        self._everybody = {node_id(number) for number in range(size)}
        self._clients: defaultdict[str, set[str]] = defaultdict(set)
        self._services = [f"service-{number:05}" for number in range(size // PER_SERVICE)]
        for number in range(size):
            for service in reached(number, size):
                self._clients[service].add(node_id(number))

    def clients(self, service: str) -> set[str]:
        """The node ids of those that reach a service."""
        return self._clients[service]

    def affected(self, write: Write) -> set[str]:
        """The node ids of those whom a write affects."""
        return self._everybody if write.is_for_all else self.clients(write.resource)

    def __iter__(self) -> Iterator[Write]:
        while True:
            write = self._next()
            self._newest[write.path] = None
            yield write

    def _next(self) -> Write:
        number = next(self._numbers)
        if number % POLICY_EVERY == 0 and (policy := self._policy()) is not None:
            return policy
        if number % SIDECAR_EVERY == 0:
            return self._move_sidecar()
        kind = self._rng.choice(["add", "add", "move", "remove", "remove"])
        if kind == "add" and len(self._extras) >= EXTRAS_MAX:
            kind = "remove"
        settled = [extra for extra in sorted(self._extras) if self._is_settled(_dataplane_path(extra))]
        if not settled:
            kind = "add"
        if kind == "add":
            service = f"service-{self._rng.randrange(self._size // PER_SERVICE):05}"
            return self.add(f"extra-{number:06}", service)
        extra = self._rng.choice(settled)
        service, address = self._extras[extra]
        if kind == "move":
            return self.add(extra, service, kind="move")
        del self._extras[extra]
        path = _dataplane_path(extra)
        return Write("remove", "DELETE", path, None, ENDPOINT, service, address=address, is_there=False)

    def add(self, extra: str, service: str, *, kind: str = "add") -> Write:
        """An endpoint of a service, with no Envoy of its own, at an address that nobody had before."""
        address = self._address(next(self._numbers))
        self._extras[extra] = (service, address)
        tags = {"kuma.io/service": service, "kuma.io/protocol": "http"}
        networking = {"address": address, "inbound": [{"port": 8080, "tags": tags}]}
        document = {"type": "Dataplane", "mesh": "default", "name": extra, "networking": networking}
        path = _dataplane_path(extra)
        return Write(kind, "PUT", path, document, ENDPOINT, service, address=address)

    def _move_sidecar(self) -> Write:
        moved = self._rng.randrange(self._size)
        while not self._is_settled(_dataplane_path(name(moved))):
            moved = self._rng.randrange(self._size)
        return self.move(moved)

    def move(self, moved: int, *, kind: str = "move a sidecar") -> Write:
        """The dataplane with a number is at an address that nobody had before, whether or not it is there now."""
        address = self._address(next(self._numbers))
        document = to_document(dataplane(moved, self._size, host=address))
        path = _dataplane_path(name(moved))
        self._moved[moved] = address
        return Write(kind, "PUT", path, document, ENDPOINT, self.service_of(moved), address=address)

    def lose(self, lost: int) -> Write:
        """The dataplane with a number is there no more."""
        address = self._moved.get(lost) or regular_address(lost)
        path = _dataplane_path(name(lost))
        return Write("lose", "DELETE", path, None, ENDPOINT, self.service_of(lost), address=address, is_there=False)

    def service_of(self, number: int) -> str:
        """The service that the dataplane with a number is an instance of."""
        return f"service-{number % (self._size // PER_SERVICE):05}"

    def policies(self) -> Iterator[Write | None]:
        """Edits about one service each, of which its clients are affected; None while each awaits its last one."""
        while True:
            write = self._policy()
            if write is not None:
                self._newest[write.path] = None
            yield write

    def policy_for_all(self) -> Write:
        """An edit that every dataplane shows, in the cluster of what comes in to it."""
        milliseconds = 5_000 + next(self._numbers)
        rule = {"default": {"connectionTimeout": f"{milliseconds}ms"}}
        spec = {"targetRef": {"kind": "Mesh"}, "rules": [rule]}
        document = {"type": "MeshTimeout", "mesh": "default", "name": "storm", "spec": spec}
        path, shown_ns = "/meshes/default/meshtimeouts/storm", milliseconds * 1_000_000
        return Write("policy for all", "PUT", path, document, CLUSTER, INBOUND, timeout_ns=shown_ns, is_for_all=True)

    def _policy(self) -> Write | None:
        settled = [service for service in self._services if self._is_settled(_policy_path(service))]
        if not settled:
            return None
        # Of two that set the same for all, that with the lower name counts: this comes before the mesh's "everybody".
        service = self._rng.choice(settled)
        milliseconds = 5_000 + next(self._numbers)
        to = {
            "targetRef": {"kind": "MeshService", "name": service},
            "default": {"connectionTimeout": f"{milliseconds}ms"},
        }
        document = {"type": "MeshTimeout", "mesh": "default", "name": f"connect-to-{service}", "spec": {"to": [to]}}
        path = _policy_path(service)
        return Write("policy", "PUT", path, document, CLUSTER, service, timeout_ns=milliseconds * 1_000_000)

    def _is_settled(self, path: str) -> bool:
        if path not in self._newest:
            return True
        newest = self._newest[path]
        return newest is not None and not newest.waiting

    def _address(self, number: int) -> str:
        return f"10.{9 + (number >> 16) % 90}.{number >> 8 & 255}.{number & 255}"

    def expect(self, write: Write, at: float) -> Awaited:
        """What is to be waited for, of a write that is about to be made at this monotonic second."""
        awaited = Awaited(
            kind=write.kind,
            type_url=write.type_url,
            resource=write.resource,
            shows=write.shows,
            waiting=set(self.affected(write)),
            started=at,
        )
        self._newest[write.path] = awaited
        return awaited


def _policy_path(service: str) -> str:
    return f"/meshes/default/meshtimeouts/connect-to-{service}"


def node_id(number: int) -> str:
    """The node id of the Envoy whose dataplane has this number."""
    return f"default.{name(number)}"


def reached(number: int, size: int) -> list[str]:
    """The services that the dataplane with a number reaches."""
    services = size // PER_SERVICE
    return [f"service-{(number * OUTBOUNDS + index) % services:05}" for index in range(OUTBOUNDS)]


def _dataplane_path(dataplane_name: str) -> str:
    return f"/meshes/default/dataplanes/{dataplane_name}"
