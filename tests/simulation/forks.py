"""What a live control plane is made of, as plain data: to see that whoever only looks has left no trace.

In: a reconciler and its snapshots. Out: a value that is equal as long as nothing has changed. Never: caches.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.variants import INBOUND_TAGS

from kumafast import TagSelector
from kumafast.reconciler import Reconciler
from kumafast.registry.registry import Registry
from kumafast.snapshot import SnapshotCache

_SELECTORS = (TagSelector({}), TagSelector({"@proxy": "*"}), *map(TagSelector, INBOUND_TAGS))


def state_of(reconciler: Reconciler, cache: SnapshotCache) -> dict[str, Any]:
    """Everything that a change would leave its mark on."""
    registry = reconciler._registry
    nodes = reconciler.connected_nodes()
    return {
        "snapshots": {node: None if (held := cache.get(node)) is None else held.content_key() for node in nodes},
        "resources": sorted(map(repr, registry.resources())),
        "generation": registry.generation,
        "meshes": {mesh: _mesh(registry, mesh) for mesh in registry._meshes},
        "hosts": {host: sorted(ids) for host, ids in registry._by_host._ids.items()},
        "secured": sorted(registry._secured),
        "online": sorted(registry._online),
        "identities": sorted(map(repr, registry.identities)),
        "broken": sorted(registry.identities._broken),
        "destinations": {
            key: (reached.destination, dict(reached._served), sorted(reached.nodes), sorted(reached._unsecured))
            for key, reached in reconciler._destinations._reached.items()
        },
        "addresses": dict(reconciler.addresses._known),
        "certificates": {node: reconciler.certificates.get(node) for node in nodes},
        "work": repr(reconciler.work),
        "revision": reconciler.revision,
        "is_behind": reconciler._publisher.is_behind,
    }


def _mesh(registry: Registry, name: str) -> dict[str, Any]:
    state = registry._meshes[name]
    policies, reach = state.policies, state.reach
    return {
        "view": (state.view.mesh, dict(state.view.dataplanes)),
        "policies": id(policies._policies),
        "bindings": {
            dataplane: (bound.ranks, bound.inbounds)
            for dataplane in policies._dataplanes
            for bound in [policies.bindings(dataplane)]
        },
        "numbers": (dict(policies._numbers), policies._next_number, list(policies._free_numbers)),
        "ids": (dict(policies._ids), dict(policies._names), policies._next_id, list(policies._free_ids)),
        "outward": {name: (known.outward.outbounds, known.services) for name, known in policies._dataplanes.items()},
        "routing": sorted(policies._routing),
        "external": (sorted(map(repr, state.external)), dict(state.external._ids), list(state.external._free_ids)),
        "hosts": {viewpoint: sight.hosts for viewpoint, sight in state.hosts.sights.items()},
        "viewpoints": (dict(state.hosts._viewpoints), {key: list(each) for key, each in state.hosts._members.items()}),
        "claims": {holder: dict(claims) for holder, claims in state.hosts._claims.items()},
        "virtual addresses": (
            dict(state.addresses._addresses),
            list(state.addresses.lacking),
            list(state.addresses.surplus),
        ),
        "led": dict(policies._led),
        "gateways": (dict(state.gateways._gateways), dict(state.gateways._stored), dict(state.gateways._by_secret)),
        "external secrets": {secret: sorted(names) for secret, names in state.external._by_secret.items()},
        "services": (dict(state.backends._ports), dict(state.backends._ports_of), dict(state.backends._refs)),
        "services' secrets": {secret: sorted(ports) for secret, ports in state.backends._by_secret.items()},
        "services' numbers": [
            (dict(numbers._numbers), numbers._next, list(numbers._free))
            for numbers in (
                state.backends._port_numbers,
                state.backends._service_numbers,
                state.backends._watcher_numbers,
            )
        ],
        "named": (dict(state.hosts._ports), dict(state.hosts._named), state.hosts._mode),
        "host names": {holder: state.hostnames.names(holder) for holder in state.hostnames._services},
        "host names' claims": {key: dict(claims) for key, claims in state.hostnames._claims.items()},
        "referring": {ref: sorted(names) for ref, names in state.backends._referring.items()},
        "consumers": {service: sorted(policies.reaching(service)) for service in policies._reaching},
        "members": sorted(sorted(names) for names in policies._members.values()),
        "index": [list(policies._index.match(selector)) for selector in _SELECTORS],
        "reach": (dict(reach._ids), reach._next_id, list(reach._free_ids)),
        "reach classes": {number: list(names) for number, names in reach._alike.items()},
        "reach index": [list(reach._index.match(selector)) for selector in _SELECTORS],
        "reach selectors": (dict(reach._selector_ids), dict(reach._destinations), list(reach._free_selector_ids)),
        "reach consumed": dict(reach._consumed),
        "reach consumers": {key: sorted(reach.consumers(key), key=repr) for key in reach._sets},
        "reach members": {key: sorted(names, key=repr) for key, names in reach._members.items()},
    }
