"""The live picture of all meshes, and what each change of it can touch.

In: changes of the store, in order. Out: `MeshView`s, providers of destinations, policies of dataplanes, and for each
batch the `Affected`.
Never: I/O, Envoy messages. One writer: the event loop that calls `apply`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Set

from kumafast._core import untrack_value
from kumafast.identity.identities import Identities
from kumafast.matching import Bindings, CompiledPolicy, compile_policies, gateway_routes, routing
from kumafast.matching.backends import Backend, BackendPort, Subject
from kumafast.matching.policy import ends
from kumafast.registry import backends
from kumafast.registry.address_book import AddressBook
from kumafast.registry.affected import Affected, DataplaneId, Gathered
from kumafast.registry.external_permissions import Clients
from kumafast.registry.hostnames import in_order
from kumafast.registry.mesh_state import MeshState
from kumafast.registry.mesh_view import MeshView
from kumafast.registry.overlay import Overlay
from kumafast.registry.reach import Destination, Tags
from kumafast.registry.viewpoints import Viewpoint
from kumafast.registry.virtual_hosts import Naming, Sight
from kumafast.registry.visibility import HostNames, is_seen_differently
from kumafast.resources import (
    Dataplane,
    DataplaneInsight,
    ExternalService,
    HostnameGenerator,
    Mesh,
    MeshGateway,
    MeshGatewayRoute,
    Resource,
    ResourceKey,
    Secret,
    catalog,
)
from kumafast.resources.connection_policy import ConnectionPolicy
from kumafast.resources.dataplane_insight import ONLINE, status
from kumafast.resources.networking import Outbound
from kumafast.resources.policies.traffic_permission import TrafficPermission
from kumafast.resources.virtual_ip import VirtualIP
from kumafast.resources.virtual_outbound import VirtualOutbound
from kumafast.snapshot.node import dataplane_of
from kumafast.store import Change, StoredResource

_DATAPLANE = Dataplane.type.name
_POLICIES = frozenset(kind.name for kind in catalog.POLICY_TYPES)
_NAMING = (VirtualIP.type.name, VirtualOutbound.type.name)
_GATEWAYS = (MeshGateway.type.name, MeshGatewayRoute.type.name)
# The fields of a Mesh that count for what policies say, by their kind.
_MESH_FIELDS: Mapping[str, Set[str]] = {
    kind.name: frozenset(kind.policy.mesh_fields)
    for kind in catalog.POLICY_TYPES
    if kind.policy is not None and kind.policy.mesh_fields
}


class Registry:
    """Meshes and dataplanes as they are now, with the indexes that say who reaches what."""

    def __init__(self, naming: Naming | None = None) -> None:
        self._naming = naming or Naming()
        self._meshes: MutableMapping[str, MeshState] = {}
        # Those in which addresses are to be given or taken back.
        self._unaddressed: dict[str, None] = {}
        # Those whose names may be others than those that have been settled.
        self._unnamed: dict[str, None] = {}
        # Those in which names may lead elsewhere.
        self._rerouted: dict[str, None] = {}
        self._by_host = HostNames[DataplaneId]()
        # Those of host names, in no order.
        self._generators: MutableMapping[str, StoredResource] = {}
        self.identities = Identities()
        """What the certificates of each mesh are made of."""
        # Those whose Envoys have said that they run with a certificate, and those with a stream that has not ended.
        self._secured: MutableMapping[DataplaneId, None] = {}
        self._online: MutableMapping[DataplaneId, None] = {}
        self.generation = 0
        """Another after each change; a fork is good while it is what it was."""

    def fork(self) -> Registry:
        """The registry as it is now, to be changed on its own. It shares with this one all that stays as it is.

        Good until this one changes, as its `generation` says. O(1) for a mesh; the rest is paid by what is changed.
        """
        forked = Registry(self._naming)
        forked._meshes = Overlay(self._meshes, copy=MeshState.fork)
        forked._by_host, forked._generators = self._by_host.fork(), Overlay(self._generators)
        forked.identities = self.identities.fork()
        forked._secured, forked._online = Overlay(self._secured), Overlay(self._online)
        return forked

    def mesh(self, name: str) -> MeshView | None:
        """The picture of one mesh; it stays as it is while the registry goes on."""
        state = self._meshes.get(name)
        return None if state is None else state.view

    def dataplane(self, dataplane_id: DataplaneId) -> Dataplane | None:
        """One dataplane as it is now."""
        state = self._meshes.get(dataplane_id.mesh)
        return None if state is None else state.view.dataplanes.get(dataplane_id.name)

    def resources(self) -> Iterator[Resource]:
        """All that the registry holds, in no order."""
        for state in self._meshes.values():
            yield from state.resources()
        yield from self.identities.secrets()
        yield from (stored.resource for stored in self._generators.values())

    def policies(self, mesh: str) -> Iterator[StoredResource]:
        """The policies of a mesh as users wrote them, in no order."""
        state = self._meshes.get(mesh)
        return iter(()) if state is None else iter(state.written.values())

    def identify(self, node_id: str) -> DataplaneId | None:
        """The dataplane that a node id names; None where it names none."""
        named = dataplane_of(node_id)
        return None if named is None else DataplaneId(*named)

    def providers(self, mesh: str, destination: Destination) -> Iterator[Dataplane]:
        """The dataplanes with an inbound that has all tags of the destination, in no order. O(those found).

        Of a port of a service those that it selects: which of them have such a port has to be looked at.
        """
        state = self._meshes.get(mesh)
        if state is None:
            return
        if isinstance(destination, BackendPort):
            backend = state.backends.get(destination)
            selections = () if backend is None else backend.selections
            names: Iterable[str] = state.policies.selected(each.selector for each in selections)
        else:
            names = state.reach.providers(destination)
        for name in names:
            yield state.view.dataplanes[name]

    def backend(self, mesh: str, port: BackendPort) -> Backend | None:
        """What a port of a service is; None where there is no such."""
        state = self._meshes.get(mesh)
        return None if state is None else state.backends.get(port)

    def leads_to(self, mesh: str, outbound: Outbound) -> Destination | None:
        """What an outbound of a dataplane of the mesh leads to; None where it refers to nothing that is there."""
        state = self._meshes.get(mesh)
        return None if state is None else state.leads_to(outbound)

    def subject(self, mesh: str, destination: Destination) -> str | Subject | None:
        """What policies about a destination are about: a service by its name, or a port of one that is there."""
        state = self._meshes.get(mesh)
        return None if state is None else state.subject(destination)

    def external_services(self, mesh: str, destination: Tags) -> list[ExternalService]:
        """The external services that have all tags of the destination, by name. O(those found)."""
        state = self._meshes.get(mesh)
        return [] if state is None else state.external.serving(destination)

    def clients(self, service: ExternalService) -> Clients:
        """Who may reach an external service that is there."""
        return self._meshes[service.mesh].external.clients(service)

    def permitted(self, dataplane_id: DataplaneId) -> frozenset[str]:
        """The external services that a dataplane that is there may reach; one object for all with the same tags."""
        state = self._meshes[dataplane_id.mesh]
        return state.permitted(dataplane_id.name)

    def consumers(self, mesh: str, destination: Destination) -> Iterator[DataplaneId]:
        """The dataplanes that reach the destination, in no order; some twice. O(those found)."""
        state = self._meshes.get(mesh)
        if state is not None:
            yield from (DataplaneId(mesh, name) for name in state.consumers(destination))

    def viewpoint(self, dataplane_id: DataplaneId) -> Viewpoint | None:
        """From where a dataplane that is there sees the names of its mesh; None where it sees none."""
        return self._meshes[dataplane_id.mesh].hosts.viewpoint(dataplane_id.name)

    def sight(self, mesh: str, viewpoint: Viewpoint) -> Sight:
        """The names that are seen from a viewpoint of a mesh: one object as long as they are the same."""
        return self._meshes[mesh].hosts.sight(viewpoint)

    def unsettled_addresses(self) -> Iterator[tuple[str, AddressBook]]:
        """The meshes in which somebody lacks an address, or an address is nobody's; they are to be looked at now."""
        for mesh in list(self._unaddressed):
            state = self._meshes.get(mesh)
            if state is None or not (state.addresses.lacking or state.addresses.surplus):
                del self._unaddressed[mesh]
            elif state.view.mesh is not None:
                yield mesh, state.addresses

    def state(self, mesh: str) -> MeshState | None:
        """All that is known of a mesh, to be read; None where that is nothing."""
        return self._meshes.get(mesh)

    def is_reached(self, mesh: str, destination: Destination) -> bool:
        """Whether a dataplane has an outbound to the destination."""
        state = self._meshes.get(mesh)
        return state is not None and state.reach.is_reached(destination)

    def is_secured(self, dataplane_id: DataplaneId) -> bool:
        """Whether a dataplane's Envoy has said that it runs with a certificate of its mesh."""
        return dataplane_id in self._secured

    def is_online(self, dataplane_id: DataplaneId) -> bool:
        """Whether a dataplane's Envoy is connected, as far as that is stored."""
        return dataplane_id in self._online

    def bindings(self, dataplane_id: DataplaneId) -> Bindings:
        """The policies of a dataplane that is there. O(its tags + policies found)."""
        return self._meshes[dataplane_id.mesh].policies.bindings(dataplane_id.name)

    def bound(self, dataplane_id: DataplaneId) -> list[ResourceKey]:
        """The policies that select a dataplane that is there, the newest first."""
        state = self._meshes[dataplane_id.mesh]
        policies = state.policies.bindings(dataplane_id.name)
        keys = {policies.subjects.policies[number].key for number in policies.ranks}
        return sorted(keys, key=lambda key: (-state.written[key].revision, key))

    def written(self, key: ResourceKey) -> StoredResource | None:
        """A policy, a MeshGateway or a route for one, as a user wrote it; None where there is none."""
        state = self._meshes.get(key.mesh)
        return None if state is None else state.written.get(key) or state.gateways.written(key)

    def selected_by(self, key: ResourceKey) -> list[str]:
        """The names of the dataplanes that a policy selects, in alphabetical order. O(those found, sorted).

        For a policy with `destinations` those at either end. A shadow selects whom it would select in force.
        """
        stored = self.written(key)
        if stored is None:
            return []
        if key.type in _GATEWAYS:
            return self._meshes[key.mesh].gateways.selected_by(key)
        return sorted(self._meshes[key.mesh].policies.selected(ends(stored.resource)))

    def hosts(self) -> Collection[str]:
        """The host names, not addresses, that dataplanes give as theirs."""
        return self._by_host.names()

    def moved(self, host: str) -> Affected:
        """What can be touched when a host name has another address."""
        gathered = Gathered()
        for dataplane_id in self._by_host.of(host):
            gathered.proxies[dataplane_id] = None
            gathered.served(dataplane_id, self._meshes[dataplane_id.mesh].served_by(dataplane_id.name))
        return gathered.complete()

    def apply(self, changes: Iterable[Change]) -> Affected:
        """Take in changes in order and name what they can touch."""
        gathered = Gathered()
        for affected in self.steps(changes):
            gathered.add(affected)
        return gathered.complete()

    def steps(self, changes: Iterable[Change]) -> Iterator[Affected]:
        """`apply` piece by piece: a policy for all dataplanes is one change, and to say whom it touches takes long.

        Between two pieces the registry may be read; until the last one is taken nothing else may change it.
        """
        gathered = Gathered()
        # A mesh and the secrets of its authority come in one commit, and are something together only.
        identities: list[tuple[ResourceKey, Resource | None]] = []
        for change in changes:
            touches: Iterable[list[DataplaneId]] = ()
            if change.key.type == _DATAPLANE:
                # By far the most of them.
                self._apply_dataplane(change, gathered)
            elif change.key.type in (Mesh.type.name, Secret.type.name):
                if change.key.type == Mesh.type.name:
                    touches = self._apply_mesh(change, gathered)
                self.generation += 1
                identities.append((change.key, None if change.stored is None else change.stored.resource))
            elif change.key.type == DataplaneInsight.type.name:
                self._apply_insight(change, gathered)
            elif change.key.type == ExternalService.type.name:
                touches = self._apply_external(change, gathered)
            elif change.key.type in backends.KINDS:
                self._apply_service(change, gathered)
            elif change.key.type in (*_NAMING, *_GATEWAYS):
                self._apply_part(change, gathered)
            elif change.key.type == HostnameGenerator.type.name:
                self._apply_generator(change)
            elif change.key.type in _POLICIES:
                touches = self._apply_policy(change)
                if change.key.type in gateway_routes.KINDS:
                    self._apply_part(change, gathered)
                if change.key.type == TrafficPermission.type.name:
                    self._state(change.key.mesh).permit(change, gathered)
            for touched in touches:
                if change.key.type in routing.KINDS:
                    self._reroute(touched, gathered)
                else:
                    gathered.bound.update(dict.fromkeys(touched))
                yield gathered.complete()
                gathered = Gathered()
        # Else only what makes certificates of a Mesh and of secrets reaches Envoy, and what policies read.
        gathered.meshes |= self.identities.apply(identities)
        for key, _ in identities:
            state = self._meshes.get(key.mesh)
            if state is not None:
                state.note_readers(key.name, gathered)
        self._settle_names(gathered)
        yield gathered.complete()

    def _state(self, mesh: str) -> MeshState:
        state = self._meshes.get(mesh)
        if state is None:
            state = self._meshes[mesh] = MeshState(mesh, self._naming, in_order(self._generators.values()))
        return state

    def _apply_insight(self, change: Change, gathered: Gathered) -> None:
        dataplane_id = DataplaneId(change.key.mesh, change.key.name)
        resource = None if change.stored is None else change.stored.resource
        if isinstance(resource, DataplaneInsight) and status(resource) == ONLINE:
            self._online[dataplane_id] = None
        else:
            self._online.pop(dataplane_id, None)
        is_secured = isinstance(resource, DataplaneInsight) and bool(resource.mtls)
        if is_secured == (dataplane_id in self._secured):
            return
        if is_secured:
            self._secured[dataplane_id] = None
        else:
            del self._secured[dataplane_id]
        self.generation += 1
        state = self._meshes.get(dataplane_id.mesh)
        if state is not None and dataplane_id.name in state.view.dataplanes:
            gathered.served(dataplane_id, state.served_by(dataplane_id.name))

    def _apply_service(self, change: Change, gathered: Gathered) -> None:
        mesh = change.key.mesh
        state = self._state(mesh)
        self.generation += 1
        redefined = state.set_service(change.key, change.stored)
        self._note_named(mesh)
        self._reroute((DataplaneId(mesh, name) for name in sorted(redefined.dataplanes)), gathered)
        for port in redefined.ports:
            # What it is made of is another, so that nothing of what is known counts any more.
            gathered.vanished.add((mesh, port))
            gathered.proxies.update(dict.fromkeys(sorted(self.consumers(mesh, port))))
        self._drop_if_empty(mesh)

    def _apply_external(self, change: Change, gathered: Gathered) -> Iterator[list[DataplaneId]]:
        """Those whose policies hold for what they send outside, where a service has come to be there or not to be."""
        mesh, name = change.key.mesh, change.key.name
        state = self._state(mesh)
        before = state.external.get(name)
        after = None if change.stored is None else change.stored.resource
        assert after is None or isinstance(after, ExternalService)
        if after != before:
            self.generation += 1
            were = frozenset(state.external.services)
            state.external.set(name, after)
            state.hosts.set_external(name, after)
            self._note_named(mesh)
            for service in (before, after):
                gathered.served_outside(mesh, state.reach, service)
            if were != state.external.services:
                for key, stored in state.counting_outside():
                    yield from self._compile(state, key, stored, before=_parts(stored.resource))
        self._drop_if_empty(mesh)

    def _apply_part(self, change: Change, gathered: Gathered) -> None:
        """Take in a VirtualOutbound, who has an address, a MeshGateway, or a route that may be for one."""
        self.generation += 1
        state = self._state(change.key.mesh)
        if change.key.type in _NAMING:
            state.set_naming(change)
            self._note_named(change.key.mesh)
        else:
            state.attach(change, gathered)
        self._drop_if_empty(change.key.mesh)

    def _apply_generator(self, change: Change) -> None:
        """Take in what makes host names: of services in all meshes."""
        self.generation += 1
        self._generators.pop(change.key.name, None)
        if change.stored is not None:
            self._generators[change.key.name] = change.stored
        for mesh, state in self._meshes.items():
            state.rename(state.hostnames.set_generators(in_order(self._generators.values())))
            self._note_named(mesh)

    def _note_named(self, mesh: str) -> None:
        self._unnamed[mesh] = self._unaddressed[mesh] = None

    def _settle_names(self, gathered: Gathered) -> None:
        """Note who sees other names than before, and what they reach by them."""
        for mesh in self._unnamed | self._rerouted:
            if mesh in self._meshes:
                self._meshes[mesh].settle_names(gathered, is_rerouted=mesh in self._rerouted)
                self._drop_if_empty(mesh)
        self._unnamed.clear()
        self._rerouted.clear()

    def _apply_mesh(self, change: Change, gathered: Gathered) -> Iterator[list[DataplaneId]]:
        """Those whose policies say something else in the mesh as it is now."""
        name = change.key.name
        after = None if change.stored is None else change.stored.resource
        assert after is None or isinstance(after, Mesh)
        state = self._state(name)
        before = state.view.mesh
        if state.set_mesh(after):
            gathered.meshes.add(name)
        self._note_named(name)
        # Addresses are given in a mesh that is there.
        self._unaddressed[name] = None
        for key, stored in state.readers.items():
            fields = _MESH_FIELDS[key.type]
            if any(getattr(before, field, None) != getattr(after, field, None) for field in fields):
                yield from self._compile(state, key, stored, before=_parts(stored.resource))
        self._drop_if_empty(name)

    def _drop_if_empty(self, mesh: str) -> None:
        if self._meshes[mesh].is_empty:
            del self._meshes[mesh]

    def _apply_policy(self, change: Change) -> Iterator[list[DataplaneId]]:
        mesh, stored = change.key.mesh, change.stored
        state = self._state(mesh)
        held = state.written.pop(change.key, None)
        state.readers.pop(change.key, None)
        if stored is not None:
            state.written[change.key] = stored
            if change.key.type in _MESH_FIELDS:
                state.readers[change.key] = stored
        yield from self._compile(state, change.key, stored, before=0 if held is None else _parts(held.resource))
        if change.key.type in routing.KINDS:
            # Names may lead elsewhere by it.
            self._rerouted[mesh] = None
        self._drop_if_empty(mesh)

    def _compile(
        self, state: MeshState, key: ResourceKey, stored: StoredResource | None, *, before: int
    ) -> Iterator[list[DataplaneId]]:
        """Put the policies that a resource stands for in the place of the `before` that it stood for."""
        policies: tuple[CompiledPolicy, ...] = ()
        self.generation += 1
        if stored is not None:
            policies = compile_policies(
                stored.resource,
                created=stored.creation_time,
                mesh=state.view.mesh,
                outside=state.external.services,
            )
        # One of a document's several policies goes by a name that no resource can have.
        for position in range(max(before, len(policies))):
            part = key if position == 0 else key._replace(name=f"{key.name}#{position}")
            for names in state.policies.set_policy(part, policies[position] if position < len(policies) else None):
                yield [DataplaneId(key.mesh, name) for name in names]

    def _reroute(self, touched: Iterable[DataplaneId], gathered: Gathered) -> None:
        """Note that dataplanes reach what their routes say now."""
        for mesh, name in touched:
            state = self._meshes[mesh]
            gathered.proxies[DataplaneId(mesh, name)] = None
            state.consume(name, gathered)

    def _apply_dataplane(self, change: Change, gathered: Gathered) -> None:
        mesh, name = dataplane_id = DataplaneId(change.key.mesh, change.key.name)
        state = self._state(mesh)
        before = state.view.dataplanes.get(name)
        after = None if change.stored is None else change.stored.resource
        if after is before or (before is not None and after == before):
            return
        assert after is None or isinstance(after, Dataplane)
        # Values all the way down: some thirty objects each that the collector need not walk through.
        untrack_value(after)
        self.generation += 1
        gathered.proxies[dataplane_id] = None
        self._by_host.replace(dataplane_id, before, after)
        # What others see of a dataplane is its inbounds. Destinations that it served before count as well as those that
        # it serves now: an endpoint that left must leave everywhere.
        seen_by_others = before is None or after is None or is_seen_differently(before, after)
        if seen_by_others and before is not None:
            gathered.served(dataplane_id, state.served_by(name))
        state.gateways.set_dataplane(name, after)
        tags = state.set_names(name, after)
        self._note_named(mesh)
        if after is None:
            if before is not None:
                state.forget(name, gathered)
            self._drop_if_empty(mesh)
            return
        state.set_outward(name, after)
        state.reach.set(name, tags)
        state.consume(name, gathered)
        state.view = state.view.with_dataplane(name, after)
        if seen_by_others:
            gathered.served(dataplane_id, state.served_by(name))


def _parts(policy: Resource) -> int:
    """How many policies a resource stands for at most."""
    return len(policy.parts if isinstance(policy, ConnectionPolicy) else ()) + 2
