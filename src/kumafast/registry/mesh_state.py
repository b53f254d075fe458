"""All that the registry knows of one mesh, with its indexes.

In: nothing; the registry fills it. Out: the parts, and questions that several of them answer together.
Never: a change of more than one of the parts for one thing that happened; the registry knows what belongs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace

from kumafast._core import TagSet
from kumafast.matching import CompiledPolicy, compile_policies
from kumafast.matching.backends import BackendPort, Subject, index_name
from kumafast.registry.address_book import AddressBook
from kumafast.registry.affected import DataplaneId, Gathered
from kumafast.registry.asked import ASKED
from kumafast.registry.backends import Backends, Redefined
from kumafast.registry.external_services import ExternalServices
from kumafast.registry.gateways import Gateways, is_builtin
from kumafast.registry.hostnames import Hostnames
from kumafast.registry.mesh_view import MeshView
from kumafast.registry.overlay import Overlay
from kumafast.registry.policies import Policies
from kumafast.registry.reach import Destination, Reach, destination_of
from kumafast.registry.viewpoints import Viewpoint, viewpoint
from kumafast.registry.virtual_hosts import Naming, VirtualHosts
from kumafast.resources import Dataplane, Mesh, MeshGateway, Resource, ResourceKey
from kumafast.resources.networking import Outbound
from kumafast.resources.policies.traffic_permission import TrafficPermission
from kumafast.resources.virtual_ip import Holder, VirtualIP
from kumafast.resources.virtual_outbound import VirtualOutbound
from kumafast.store import Change, StoredResource


class MeshState:
    """One mesh. One writer; the event loop that owns the registry."""

    __slots__ = (
        "addresses",
        "backends",
        "external",
        "gateways",
        "hostnames",
        "hosts",
        "policies",
        "reach",
        "readers",
        "view",
        "written",
    )

    def __init__(self, name: str, naming: Naming, generators: Iterable[StoredResource] = ()) -> None:
        """`generators` are those of host names, in their order."""
        self.view = MeshView(name)
        self.reach = Reach()
        self.external = ExternalServices()
        self.backends = Backends()
        self.gateways = Gateways()
        self.addresses = AddressBook()
        self.hosts = VirtualHosts(self.addresses, naming)
        self.hostnames = Hostnames(generators)
        self.policies = Policies(self.hosts, self.backends)
        self.written: MutableMapping[ResourceKey, StoredResource] = {}
        """Policies as users wrote them; matching knows them by their compiled form."""
        self.readers: MutableMapping[ResourceKey, StoredResource] = {}
        """Those of them for which fields of the Mesh count."""

    def fork(self) -> MeshState:
        """The same, to be changed on its own; it shares with this, and is good until this changes."""
        forked = MeshState.__new__(MeshState)
        forked.view = self.view
        forked.backends = self.backends.fork()
        forked.gateways = self.gateways.fork()
        forked.addresses = self.addresses.fork()
        forked.hosts = self.hosts.fork(forked.addresses)
        forked.hostnames = self.hostnames.fork()
        forked.reach, forked.policies = self.reach.fork(), self.policies.fork(forked.hosts, forked.backends)
        forked.external = self.external.fork()
        forked.written, forked.readers = Overlay(self.written), Overlay(self.readers)
        return forked

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of it."""
        if self.view.mesh is not None or self.view.dataplanes or self.written or self.external or len(self.backends):
            return False
        return self.hosts.is_empty and not self.addresses and not self.gateways

    def set_mesh(self, mesh: Mesh | None) -> bool:
        """Take in the Mesh itself; whether another rule holds for what leaves it."""
        before = self.lets_through
        self.view = replace(self.view, mesh=mesh)
        services = None if mesh is None else mesh.mesh_services
        self.hosts.set_mode("" if services is None else services.mode)
        return self.lets_through != before

    @property
    def lets_through(self) -> bool:
        """Whether redirected traffic to what is not in the mesh goes out, as long as no policy says otherwise."""
        return self.view.mesh is None or self.view.mesh.lets_through

    # Questions that several of the parts answer.

    def resources(self) -> Iterator[Resource]:
        """All that is held, in no order."""
        if self.view.mesh is not None:
            yield self.view.mesh
        yield from self.view.dataplanes.values()
        yield from self.external
        yield from self.backends
        yield from (stored.resource for stored in (*self.gateways, *self.hosts.rules, *self.written.values()))
        yield from self.addresses.resources(self.view.name)

    def permitted(self, name: str) -> frozenset[str]:
        """The external services that a dataplane may reach; one object for all with the same tags."""
        if not self.external:
            return frozenset()
        dataplane = self.view.dataplanes[name]
        tags = [inbound.tags for inbound in dataplane.inbounds]
        if dataplane.gateway is not None:
            tags.append(dataplane.gateway.tags)
        return self.external.permitted(tuple(tags))

    def outbounds(self, dataplane: Dataplane) -> tuple[Destination, ...]:
        """What a dataplane asks for, each once in its order; references that lead nowhere are left out.

        A built-in gateway asks for what its listeners lead to.
        """
        if is_builtin(dataplane):
            gateway = self.gateways.get(dataplane.name)
            return () if gateway is None else gateway.destinations
        by_tags = ASKED.by_tags(dataplane.outbounds)
        if by_tags is not None:
            return by_tags
        found = (self.destination(each) for each in dataplane.outbounds)
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def destination(self, outbound: Outbound) -> Destination | None:
        """What an outbound asks for; None for what refers to nothing."""
        if outbound.backend_ref is not None:
            return self.backends.find(outbound.backend_ref)
        return destination_of(outbound.destination_tags) if outbound.destination_tags else None

    def viewpoint(self, dataplane: Dataplane) -> Viewpoint | None:
        """From where a dataplane sees names; None where it sees none."""
        if is_builtin(dataplane):
            return None
        return viewpoint(dataplane, self.backends.wanted(dataplane))

    def set_service(self, key: ResourceKey, stored: StoredResource | None) -> Redefined:
        """Take in a service that is new or has changed, or one that is gone (None): what it serves and its names."""
        redefined, holder = self.backends.set(key, stored), Holder(key.type, key.name)
        ports = ((backend.number, backend.key) for backend in self.backends.ports(*holder))
        self.hosts.set_resource(holder, None if stored is None else tuple(sorted(ports)))
        self.rename(self.hostnames.set_service(holder, stored))
        if redefined.ports:
            # Routes are about services as they are.
            redefined.dataplanes |= self.policies.led_by_name(index_name(key.type, key.name))
        for name in redefined.dataplanes:
            # Its references may lead elsewhere, and what it reaches may be something else.
            dataplane = self.view.dataplanes[name]
            self.hosts.see(name, self.viewpoint(dataplane))
            self.set_outward(name, dataplane)
        return redefined

    def set_naming(self, change: Change) -> None:
        """Take in a VirtualOutbound, or who has an address."""
        if change.key.type == VirtualOutbound.type.name:
            self.hosts.set_rule(change.key, change.stored)
            return
        after = None if change.stored is None else change.stored.resource
        assert after is None or isinstance(after, VirtualIP)
        self.hosts.renumbered(self.addresses.put(change.key.name, None if after is None else after.holder))

    def set_names(self, name: str, dataplane: Dataplane | None) -> tuple[TagSet, ...]:
        """Take in which names a dataplane makes and from where it sees them, or forget it (None). The tags of its
        inbounds come back: what is indexed by them is given the same."""
        self.backends.set_dataplane(name, dataplane)
        if dataplane is None:
            self.hosts.set_dataplane(name, None, None)
            return ()
        tags = tuple([TagSet(inbound.tags) for inbound in dataplane.inbounds])
        self.hosts.set_dataplane(name, dataplane, self.viewpoint(dataplane), tags)
        return tags

    def set_outward(self, name: str, dataplane: Dataplane) -> None:
        """Take in what policies see of a dataplane that is new or has changed."""
        seen_from = self.hosts.viewpoint(name)
        listeners: tuple[TagSet, ...] | None = None
        if is_builtin(dataplane):
            gateway = self.gateways.get(name)
            listeners = () if gateway is None else gateway.candidates
        self.policies.set_dataplane(
            name, dataplane, self.outbounds(dataplane), seen_from=seen_from, listeners=listeners
        )

    def attach(self, change: Change, gathered: Gathered) -> None:
        """Take in a MeshGateway or a route, and note the gateways that are something else by it."""
        is_gateway = change.key.type == MeshGateway.type.name
        put = self.gateways.set_gateway if is_gateway else self.gateways.set_route
        for name in put(change.key, change.stored, self.policies.selected):
            self.set_outward(name, self.view.dataplanes[name])
            gathered.proxies[DataplaneId(self.view.name, name)] = None
            self.consume(name, gathered)

    def consume(self, name: str, gathered: Gathered) -> None:
        """Take note of what a dataplane reaches now."""
        self._note_vanished(self.reach.consume(name, self.policies.destinations(name)), gathered)

    def forget(self, name: str, gathered: Gathered) -> None:
        """Forget a dataplane that was there, and what it reached."""
        self._note_vanished(self.reach.remove(name), gathered)
        self.policies.remove_dataplane(name)
        self.view = replace(self.view, dataplanes=self.view.dataplanes.delete(name))

    def _note_vanished(self, vanished: Iterable[Destination], gathered: Gathered) -> None:
        gathered.vanished.update((self.view.name, destination) for destination in vanished)

    def consumers(self, destination: Destination) -> Iterator[str]:
        """The dataplanes that reach a destination, in no order; some twice. O(those found)."""
        for consumer in self.reach.consumers(destination):
            yield from self.hosts.members(consumer) if isinstance(consumer, Viewpoint) else (str(consumer),)

    def rename(self, holders: Iterable[Holder]) -> None:
        """Take note of the host names of some services."""
        for holder in holders:
            self.hosts.name_resource(holder, self.hostnames.names(holder))

    def leads_to(self, outbound: Outbound) -> Destination | None:
        """What an outbound leads to; None where it refers to a port that is not there."""
        found, ref = self.destination(outbound), outbound.backend_ref
        if ref is None or not isinstance(found, BackendPort):
            return found
        backend = self.backends.get(found)
        return found if backend is not None and ref.port in (0, backend.number) else None

    def subject(self, destination: Destination) -> str | Subject | None:
        """What policies about a destination are about: a service by its name, or a port of one that is there."""
        return self.policies.subject(destination)

    def counting_outside(self) -> Iterator[tuple[ResourceKey, StoredResource]]:
        """The policies that hold for what is sent to external services too. O(policies of the mesh)."""
        for key, stored in list(self.written.items()):
            traits = stored.resource.type.policy
            if traits is not None and traits.counts_outside:
                yield key, stored

    # What follows from a change in one of the parts for another.

    def permit(self, change: Change, gathered: Gathered) -> None:
        """Take in who may reach external services by a TrafficPermission, and note for which that is the question."""
        permission = None if change.stored is None else change.stored.resource
        assert permission is None or isinstance(permission, TrafficPermission)
        policies: tuple[CompiledPolicy, ...] = ()
        if change.stored is not None:
            policies = compile_policies(change.stored.resource, created=change.stored.creation_time)
        for service in self.external.permit(change.key, permission, policies):
            gathered.served_outside(self.view.name, self.reach, service)

    def note_readers(self, secret: str, gathered: Gathered) -> None:
        """Note whose certificates may be others with a secret."""
        for service in self.external.reading(secret):
            gathered.served_outside(self.view.name, self.reach, service)
        gathered.external.update((self.view.name, port) for port in self.backends.reading(secret))
        gathered.proxies.update((DataplaneId(self.view.name, name), None) for name in self.gateways.reading(secret))

    def settle_names(self, gathered: Gathered, *, is_rerouted: bool) -> None:
        """Note who sees other names than before, and what they reach by them; `is_rerouted` where routes differ."""
        mesh, seen = self.view.name, dict(self.hosts.settle())
        for seen_from in seen:
            names = self.hosts.members(seen_from)
            gathered.proxies.update((DataplaneId(mesh, name), None) for name in names)
        if is_rerouted:
            # Who is led elsewhere has been said; here it is what they reach.
            seen |= self.hosts.sights
        for seen_from, sight in seen.items():
            self._note_vanished(self.reach.consume(seen_from, self.policies.led(seen_from, sight)), gathered)

    def served_by(self, name: str) -> list[Destination]:
        """What a dataplane may serve: destinations that somebody reaches, and ports of services. O(those found)."""
        return [*self.reach.destinations_served_by(name), *self.backends.served_by(self.policies.candidates(name))]
