"""What the control plane writes about services itself: first generators of host names, MeshServices from dataplanes.

In: dataplanes and meshes as they are stored. Out: writes. Never: a change of a service that a user wrote.

In a mesh whose `meshServices.mode` is other than `Disabled` each `kuma.io/service` has a MeshService with the ports of
its inbounds. A dataplane that comes or goes costs a look at its own services; of other meshes nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from kumafast.errors import (
    CompactedError,
    ConflictError,
    KumafastError,
    MeshNotFoundError,
    NotFoundError,
    StoreUnavailableError,
)
from kumafast.resources import Dataplane, Mesh, MeshService, Resource, ResourceKey, validate, with_defaults
from kumafast.resources.fields import FrozenMap
from kumafast.resources.hostname_generator import initial_generators
from kumafast.resources.mesh_service import MeshServiceSpec, ServiceSelector
from kumafast.resources.service_port import ServicePort
from kumafast.resources.tags import PROTOCOLS, SERVICE_TAG
from kumafast.store import Change, Delete, Put, Store, StoredResource

_LOG = logging.getLogger(__name__)

MANAGED_BY_LABEL = "kuma.io/managed-by"
GRACE_LABEL = "kuma.io/deletion-grace-period-started-at"
MANAGER = "meshservice-generator"
GRACE = timedelta(hours=1)
"""How long the service stays of which no dataplane is an instance any more, as in Kuma."""
OPERATIONS_MAX = 1000
_RETRY_S = 1.0
_DISPLAY_NAME_LABEL = "kuma.io/display-name"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


async def ensure_generators(store: Store) -> None:
    """As in Kuma, the generators of host names that every zone has are there again after each start."""
    for generator in initial_generators():
        # What users made of one stays.
        with contextlib.suppress(ConflictError):
            await store.put(generator, expected_revision=0)


@dataclass(slots=True)
class _Instances:
    """The dataplanes with a service: the ports that each has for it, and how many have the same."""

    ports: dict[str, tuple[ServicePort, ...]] = field(default_factory=dict)
    counts: Counter[tuple[ServicePort, ...]] = field(default_factory=Counter)

    def set(self, name: str, ports: tuple[ServicePort, ...] | None) -> None:
        """Take in what a dataplane has for the service; None for nothing."""
        before = self.ports.pop(name, None)
        if before is not None:
            self.counts[before] -= 1
            self.counts += Counter()
        if ports is not None:
            self.ports[name] = ports
            self.counts[ports] += 1

    def agreed(self, current: tuple[ServicePort, ...] | None) -> tuple[ServicePort, ...]:
        """The ports of the service: what it has as long as a dataplane has the same, then those of the first."""
        return current if current in self.counts and current is not None else self.ports[min(self.ports)]


class ServiceGenerator:
    """Keeps the MeshServices that are made from dataplanes as these are. One in all instances on a store."""

    def __init__(
        self,
        *,
        store: Store,
        zone: str,
        grace: timedelta = GRACE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._zone = zone
        self._grace = grace
        self._now = now
        self._meshes: set[str] = set()
        self._instances: dict[tuple[str, str], _Instances] = {}
        self._offered: dict[tuple[str, str], tuple[str, ...]] = {}
        self._services: dict[tuple[str, str], StoredResource] = {}
        # Those to be looked at, and since when those are left alone that nobody is an instance of.
        self._due: dict[tuple[str, str], None] = {}
        self._waiting: dict[tuple[str, str], datetime] = {}
        self._has_failed = False

    async def follow(self) -> None:
        """Write what is to be written as it becomes so, until cancelled."""
        while True:
            revision = await self._load()
            commits = self._store.watch(after=revision)
            following = asyncio.ensure_future(anext(commits))
            try:
                while True:
                    await self._write()
                    await asyncio.wait({following}, timeout=self._rest_s())
                    if following.done():
                        for change in following.result().changes:
                            await self._take(change)
                        following = asyncio.ensure_future(anext(commits))
            except CompactedError:
                continue
            except StopAsyncIteration:
                return
            finally:
                following.cancel()

    async def _load(self) -> int:
        for known in (self._meshes, self._instances, self._offered, self._services, self._due, self._waiting):
            known.clear()
        # What comes in between is seen again in the watch, and is the same then.
        revision = await self._store.revision()
        for stored in (await self._store.list(MeshService.type.name)).items:
            self._take_service(stored.resource.key, stored)
        for stored in (await self._store.list(Mesh.type.name)).items:
            await self._take_mesh(stored.resource.name, stored.resource)
        return revision

    # What is stored.

    async def _take(self, change: Change) -> None:
        resource = None if change.stored is None else change.stored.resource
        if change.key.type == Dataplane.type.name and change.key.mesh in self._meshes:
            self._take_dataplane(change.key.mesh, change.key.name, resource)
        elif change.key.type == MeshService.type.name:
            self._take_service(change.key, change.stored)
        elif change.key.type == Mesh.type.name:
            await self._take_mesh(change.key.name, resource)

    async def _take_mesh(self, name: str, mesh: Resource | None) -> None:
        services = mesh.mesh_services if isinstance(mesh, Mesh) else None
        is_generating = services is not None and services.mode != "Disabled"
        if is_generating and name not in self._meshes:
            self._meshes.add(name)
            for stored in (await self._store.list(Dataplane.type.name, name)).items:
                self._take_dataplane(name, stored.resource.name, stored.resource)
        elif not is_generating:
            self._meshes.discard(name)
            for known in (self._instances, self._offered):
                for key in [key for key in known if key[0] == name]:
                    del known[key]
        self._due.update((key, None) for key in self._services if key[0] == name)

    def _take_dataplane(self, mesh: str, name: str, dataplane: Resource | None) -> None:
        ports = _ports_by_service(dataplane) if isinstance(dataplane, Dataplane) else {}
        for service in dict.fromkeys((*self._offered.pop((mesh, name), ()), *ports)):
            instances = self._instances.setdefault((mesh, service), _Instances())
            instances.set(name, ports.get(service))
            if not instances.ports:
                del self._instances[mesh, service]
            self._due[mesh, service] = None
        if ports:
            self._offered[mesh, name] = tuple(ports)

    def _take_service(self, key: ResourceKey, stored: StoredResource | None) -> None:
        self._services.pop((key.mesh, key.name), None)
        if stored is not None:
            self._services[key.mesh, key.name] = stored
        self._due[key.mesh, key.name] = None

    # What is to be written.

    async def _write(self) -> None:
        self._has_failed = False
        ready = [key for key, started in self._waiting.items() if started + self._grace <= self._now()]
        self._due.update(dict.fromkeys(ready))
        while self._due:
            batch = list(islice(self._due, OPERATIONS_MAX))
            operations = [each for key in batch for each in self._operations(*key)]
            try:
                if operations:
                    await self._store.write(operations)
            except (ConflictError, NotFoundError, MeshNotFoundError):
                # Somebody else was faster, and what is stored is about to be seen here.
                return
            except KumafastError as error:
                # Where nothing can be stored, the store has said so, once.
                level = logging.DEBUG if isinstance(error, StoreUnavailableError) else logging.WARNING
                _LOG.log(level, "generated services cannot be stored: %s", error)
                self._has_failed = True
                return
            for key in batch:
                del self._due[key]

    def _rest_s(self) -> float | None:
        if self._has_failed:
            return _RETRY_S
        if not self._waiting:
            return None
        return max(0.0, (min(self._waiting.values()) + self._grace - self._now()).total_seconds())

    def _operations(self, mesh: str, name: str) -> Iterator[Put | Delete]:
        self._waiting.pop((mesh, name), None)
        stored, instances = self._services.get((mesh, name)), self._instances.get((mesh, name))
        if stored is None:
            if instances is not None:
                made = self._made(mesh, name, instances.agreed(None))
                if made is not None:
                    yield Put(made, expected_revision=0)
            return
        service = stored.resource
        assert isinstance(service, MeshService)
        if service.labels.get(MANAGED_BY_LABEL) != MANAGER:
            return
        if mesh not in self._meshes:
            yield Delete(service.key, expected_revision=stored.revision)
        elif instances is None:
            yield from self._outlived(stored)
        else:
            ports = instances.agreed(service.spec.ports)
            if ports != service.spec.ports or GRACE_LABEL in service.labels:
                labels = {name: value for name, value in service.labels.items() if name != GRACE_LABEL}
                spec = service.spec.model_copy(update={"ports": ports})
                update = {"labels": FrozenMap(labels), "spec": spec}
                yield Put(service.model_copy(update=update), expected_revision=stored.revision)

    def _outlived(self, stored: StoredResource) -> Iterator[Put | Delete]:
        """Of a service that nobody is an instance of: that its time begins, or its end."""
        service, now = stored.resource, self._now()
        started = _time(service.labels.get(GRACE_LABEL, ""))
        if started is None:
            labels = FrozenMap(sorted({**service.labels, GRACE_LABEL: now.isoformat()}.items()))
            yield Put(service.model_copy(update={"labels": labels}), expected_revision=stored.revision)
        elif started + self._grace <= now:
            yield Delete(service.key, expected_revision=stored.revision)
        else:
            self._waiting[service.mesh, service.name] = started

    def _made(self, mesh: str, name: str, ports: tuple[ServicePort, ...]) -> Resource | None:
        selector = ServiceSelector(dataplane_tags=FrozenMap({SERVICE_TAG: name}))
        labels = FrozenMap({_DISPLAY_NAME_LABEL: name, MANAGED_BY_LABEL: MANAGER})
        service = MeshService(mesh=mesh, name=name, labels=labels, spec=MeshServiceSpec(selector=selector, ports=ports))
        for violation in validate(service):
            _LOG.warning("mesh %s: no MeshService for %s: %s", mesh, name, violation)
            return None
        return with_defaults(service, zone=self._zone)


def _ports_by_service(dataplane: Dataplane) -> dict[str, tuple[ServicePort, ...]]:
    """The ports of each service that is a good name for one; of several inbounds with one port the first counts."""
    found: dict[str, dict[int, ServicePort]] = {}
    for inbound in dataplane.inbounds:
        if _NAME.fullmatch(inbound.service):
            protocol = inbound.protocol if inbound.protocol in PROTOCOLS else "tcp"
            port = ServicePort(
                name=inbound.section_name, port=inbound.port, target_port=inbound.port, app_protocol=protocol
            )
            found.setdefault(inbound.service, {}).setdefault(inbound.port, port)
    return {service: tuple(ports.values()) for service, ports in found.items()}


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
