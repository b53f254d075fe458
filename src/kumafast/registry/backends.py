"""The services of one mesh: what each port of theirs is, which of them a dataplane serves, who asks for some by labels.

In: MeshServices, MeshMultiZoneServices and MeshExternalServices that come, change and go; dataplanes with references.
Out: `Backend`s by their ports; which of them are something else after a change. Never: an instance, or a secret.

One more service costs its own ports and those who ask for it, by name or by labels, whatever their number in the mesh:
selectors of instances are one `SelectorSet`, labels of services one `TagIndex`, and selectors of labels another set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet
from kumafast.matching.backends import Backend, BackendPort, Service, compile_service, port_of
from kumafast.registry.asked import ASKED
from kumafast.registry.numbers import Numbers
from kumafast.registry.overlay import Index, IndexOverlay, Overlay
from kumafast.registry.viewpoints import wanted_name
from kumafast.resources import Dataplane, MeshExternalService, MeshMultiZoneService, MeshService, ResourceKey
from kumafast.resources.networking import BackendRef
from kumafast.store import StoredResource

KINDS = frozenset({MeshService.type.name, MeshExternalService.type.name, MeshMultiZoneService.type.name})
"""The kinds of resources that outbounds refer to."""

# A fact beside a service's labels, which cannot be called so.
_KIND = "@kind"


class LabelRef(NamedTuple):
    """All services of a kind that have some labels."""

    kind: str
    labels: tuple[tuple[str, str], ...]

    @property
    def selector(self) -> TagSelector:
        """The same over what services are indexed by."""
        return TagSelector({**dict(self.labels), _KIND: self.kind})


Watcher: TypeAlias = LabelRef | str
"""Who asks for services by labels: references of dataplanes, or a MeshMultiZoneService by its name."""


@dataclass(slots=True)
class Redefined:
    """What a change of a service comes to."""

    ports: set[BackendPort] = field(default_factory=set)
    """Those that are something else now, or are new, or gone."""
    dataplanes: set[str] = field(default_factory=set)
    """Those with a reference that leads elsewhere."""


class Backends:
    """One mesh's services. One writer; the event loop that owns the registry."""

    def __init__(self) -> None:
        self._services: MutableMapping[tuple[str, str], StoredResource] = {}
        self._ports: MutableMapping[BackendPort, Backend] = {}
        self._ports_of: MutableMapping[tuple[str, str], tuple[BackendPort, ...]] = {}
        self._by_secret: MutableMapping[str, set[BackendPort]] = {}
        # Which ports a dataplane serves: their selectors by number.
        self._instances = SelectorSet()
        self._port_numbers = Numbers[BackendPort]()
        # Which services have some labels, and who asks for some labels.
        self._labels: Index = TagIndex()
        self._service_numbers = Numbers[tuple[str, str]]()
        self._watchers = SelectorSet()
        self._watcher_numbers = Numbers[Watcher]()
        self._referring: MutableMapping[LabelRef, set[str]] = {}
        self._refs: MutableMapping[str, tuple[LabelRef, ...]] = {}

    def fork(self) -> Backends:
        """The same, to be changed on their own; they share with these, and are good until these change."""
        assert isinstance(self._labels, TagIndex)
        forked = Backends()
        forked._services, forked._ports = Overlay(self._services), Overlay(self._ports)
        forked._ports_of = Overlay(self._ports_of)
        forked._by_secret = Overlay(self._by_secret, copy=set.copy)
        forked._instances, forked._watchers = self._instances, self._watchers
        forked._port_numbers = self._port_numbers.fork()
        forked._service_numbers = self._service_numbers.fork()
        forked._watcher_numbers = self._watcher_numbers.fork()
        forked._labels = IndexOverlay(self._labels)
        forked._referring = Overlay(self._referring, copy=set.copy)
        forked._refs = Overlay(self._refs)
        return forked

    def __iter__(self) -> Iterator[Service]:
        return (_service(stored) for stored in self._services.values())

    def __len__(self) -> int:
        return len(self._services)

    def get(self, port: BackendPort) -> Backend | None:
        """What a port is; None where there is no such."""
        return self._ports.get(port)

    def written(self, kind: str, name: str) -> StoredResource | None:
        """A service as it was written; None where there is none."""
        return self._services.get((kind, name))

    def ports(self, kind: str, name: str) -> tuple[Backend, ...]:
        """The ports of a service."""
        return tuple(self._ports[port] for port in self._ports_of.get((kind, name), ()))

    def parts(self, name: str) -> list[str]:
        """The names of the MeshServices that a MeshMultiZoneService is made of; none where there is no such."""
        stored = self._services.get((MeshMultiZoneService.type.name, name))
        return [] if stored is None else list(self.named(_parts_of(stored)))

    def served_by(self, candidates: Sequence[TagSet]) -> list[BackendPort]:
        """The ports that a dataplane with these candidates may serve. O(its tags + those found)."""
        if not candidates or not self._ports:
            return []
        return [self._port_numbers.key(number) for number, _ in self._instances.match(candidates)]

    def reading(self, secret: str) -> frozenset[BackendPort]:
        """Those that a secret of the mesh is for."""
        return frozenset(self._by_secret.get(secret, ()))

    # References.

    def find(self, ref: BackendRef) -> BackendPort | None:
        """Where a reference leads; by labels to the service that was created first, None where there is none.

        One by name leads to that name, whether or not there is such a service.
        """
        if ref.name:
            return port_of(ref)
        names = self.named(label_ref(ref))
        oldest = min(names, key=lambda name: (self._services[ref.kind, name].creation_time, name), default=None)
        return None if oldest is None else port_of(ref.model_copy(update={"name": oldest}))

    def named(self, ref: LabelRef) -> Iterator[str]:
        """The names of the services that have some labels. O(those found)."""
        return (self._service_numbers.key(number)[1] for number in self._labels.match(ref.selector))

    def wanted(self, dataplane: Dataplane) -> frozenset[str] | None:
        """By which names a dataplane asks for the services that it reaches; None where it does not say."""
        refs = _reachable(dataplane)
        return None if refs is None else frozenset(name for ref in refs for name in self._wanted(ref))

    def _wanted(self, ref: BackendRef) -> Iterator[str]:
        names = (ref.name,) if ref.name else self.named(label_ref(ref))
        return (wanted_name(ref.kind, name, ref.port) for name in names)

    def set_dataplane(self, name: str, dataplane: Dataplane | None) -> None:
        """Take note of whom a dataplane asks for by labels; None where it is gone."""
        before = self._refs.pop(name, ())
        refs = () if dataplane is None else _label_refs(dataplane)
        now = tuple(dict.fromkeys(refs)) if refs else ()
        if now == before:
            if now:
                self._refs[name] = now
            return
        for ref in set(before).difference(now):
            self._referring[ref].discard(name)
            if not self._referring[ref]:
                del self._referring[ref]
                self._watch(ref, None)
        if now:
            self._refs[name] = now
        for ref in set(now).difference(before):
            if ref not in self._referring:
                self._watch(ref, ref.selector)
            self._referring.setdefault(ref, set()).add(name)

    # Services.

    def set(self, key: ResourceKey, stored: StoredResource | None) -> Redefined:
        """Take in a service that is new or has changed, or forget one (None). O(it, and those who ask for it)."""
        place = (key.type, key.name)
        before = self._services.pop(place, None)
        if stored is not None:
            self._services[place] = stored
        redefined = Redefined()
        watchers = {*self._watching(place, before), *self._watching(place, stored)}
        self._index_labels(place, stored)
        if key.type == MeshMultiZoneService.type.name:
            self._watch(key.name, None if stored is None else _parts_of(stored).selector)
        self._compile(place, redefined)
        for watcher in watchers:
            if isinstance(watcher, LabelRef):
                redefined.dataplanes |= self._referring[watcher]
            else:
                self._compile((MeshMultiZoneService.type.name, watcher), redefined)
        return redefined

    def _watching(self, place: tuple[str, str], stored: StoredResource | None) -> list[Watcher]:
        if stored is None:
            return []
        return [self._watcher_numbers.key(number) for number, _ in self._watchers.match(_tags(place, stored))]

    def _index_labels(self, place: tuple[str, str], stored: StoredResource | None) -> None:
        number = self._service_numbers.find(place)
        if stored is None:
            if number is not None:
                self._labels.remove(number)
                self._service_numbers.remove(place)
        elif number is None:
            self._labels.add(self._service_numbers.add(place), _tags(place, stored))
        else:
            self._labels.update(number, _tags(place, stored))

    def _watch(self, watcher: Watcher, selector: TagSelector | None) -> None:
        number = self._watcher_numbers.find(watcher)
        if number is not None:
            self._watchers = self._watchers.removed([number])
        if selector is None:
            if number is not None:
                self._watcher_numbers.remove(watcher)
            return
        if number is None:
            number = self._watcher_numbers.add(watcher)
        self._watchers = self._watchers.added([(number, selector)])

    def _compile(self, place: tuple[str, str], redefined: Redefined) -> None:
        """Put the ports of a service as it is now in the place of those that it had."""
        stored = self._services.get(place)
        compiled = () if stored is None else compile_service(_service(stored), self._made_of(stored))
        now = {backend.key: backend for backend in compiled}
        before = {port: self._ports[port] for port in self._ports_of.pop(place, ())}
        if now:
            self._ports_of[place] = tuple(now)
        for port in {**before, **now}:
            if before.get(port) != now.get(port):
                self._define(port, now.get(port))
                redefined.ports.add(port)

    def _made_of(self, stored: StoredResource) -> Iterable[MeshService]:
        if not isinstance(stored.resource, MeshMultiZoneService):
            return
        for name in self.named(_parts_of(stored)):
            part = self._services[MeshService.type.name, name].resource
            assert isinstance(part, MeshService)
            yield part

    def _define(self, port: BackendPort, backend: Backend | None) -> None:
        before = self._ports.pop(port, None)
        for secret in _secrets(before):
            self._by_secret[secret].discard(port)
            if not self._by_secret[secret]:
                del self._by_secret[secret]
        number = self._port_numbers.find(port)
        if number is not None:
            self._instances = self._instances.removed([number])
        if backend is None:
            self._port_numbers.remove(port)
            return
        self._ports[port] = backend
        for secret in _secrets(backend):
            self._by_secret.setdefault(secret, set()).add(port)
        if number is None:
            number = self._port_numbers.add(port)
        self._instances = self._instances.added([(number, each.selector) for each in backend.selections])


def label_ref(ref: BackendRef) -> LabelRef:
    """A reference by labels, without its port."""
    return LabelRef(ref.kind, tuple(ref.labels.items()))


def _label_refs(dataplane: Dataplane) -> Iterable[LabelRef]:
    outbounds, reachable = dataplane.outbounds, _reachable(dataplane) or ()
    if not reachable and ASKED.by_tags(outbounds) is not None:
        # Nearly all of them, where services are known by tags.
        return ()
    refs = (outbound.backend_ref for outbound in outbounds)
    return (label_ref(ref) for ref in (*refs, *reachable) if ref is not None and not ref.name)


def _reachable(dataplane: Dataplane) -> tuple[BackendRef, ...] | None:
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    return None if proxying is None or proxying.reachable_backends is None else proxying.reachable_backends.refs


def _service(stored: StoredResource) -> Service:
    service = stored.resource
    assert isinstance(service, MeshService | MeshExternalService | MeshMultiZoneService)
    return service


def _parts_of(stored: StoredResource) -> LabelRef:
    """The MeshServices that a MeshMultiZoneService asks for."""
    assert isinstance(stored.resource, MeshMultiZoneService)
    labels = stored.resource.spec.selector.mesh_service.match_labels
    return LabelRef(MeshService.type.name, tuple(labels.items()))


def _tags(place: tuple[str, str], stored: StoredResource) -> TagSet:
    return TagSet({**stored.resource.labels, _KIND: place[0]})


def _secrets(backend: Backend | None) -> frozenset[str]:
    return frozenset() if backend is None or backend.outside is None else backend.outside.secrets
