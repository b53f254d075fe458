"""The built-in gateways of one mesh: which MeshGateway each of them is, and what is attached to its listeners.

In: dataplanes, MeshGateways and routes that come, change and go. Out: a `Gateway` for each dataplane that is selected;
those for which that is another by a change. Never: messages, clusters, or the content of a certificate.

A change is looked at for the gateways that it selects or selected, from the index that policies are matched by:
sidecars cost nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kumafast._core import SelectorSet, TagSelector, TagSet
from kumafast.matching import listener_candidates, selection
from kumafast.matching.gateway_routes import Attached, GatewayRoute, attached, compile_route
from kumafast.registry.overlay import Overlay
from kumafast.registry.reach import Destination
from kumafast.resources import Dataplane, MeshGateway, MeshGatewayRoute, ResourceKey
from kumafast.store import StoredResource

V = TypeVar("V")

Selected = Callable[[Iterable[TagSelector]], set[str]]
"""The dataplanes that one of some selectors matches, whatever they are."""

BUILTIN = "BUILTIN"


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a built-in gateway listens on, and where what comes in goes. Equal where no proxy could tell it."""

    name: str
    """The MeshGateway that it is."""
    listeners: tuple[Attached, ...]
    candidates: tuple[TagSet, ...]
    """What policies are matched against, for each listener: its tags, those of the MeshGateway and of the dataplane."""
    destinations: tuple[Destination, ...] = field(init=False, compare=False)
    """All that it leads to, each once."""

    def __post_init__(self) -> None:
        led = dict.fromkeys(each for listener in self.listeners for each in listener.destinations)
        object.__setattr__(self, "destinations", tuple(led))


def is_builtin(dataplane: Dataplane | None) -> bool:
    """Whether a dataplane is a gateway whose Envoy is ours alone."""
    return dataplane is not None and dataplane.gateway is not None and dataplane.gateway.type == BUILTIN


class Gateways:
    """One mesh's built-in gateways. One writer; the event loop that owns the registry."""

    def __init__(self) -> None:
        self._resources = _Numbered[StoredResource]()
        self._routes = _Numbered[GatewayRoute]()
        self._stored: MutableMapping[ResourceKey, StoredResource] = {}
        self._dataplanes: MutableMapping[str, Dataplane] = {}
        self._gateways: MutableMapping[str, Gateway] = {}
        # Of a secret the MeshGateways with a certificate that is kept in it.
        self._by_secret: MutableMapping[str, frozenset[str]] = {}

    def fork(self) -> Gateways:
        """The same, to be changed on their own; they share with these, and are good until these change."""
        forked = Gateways()
        forked._resources, forked._routes = self._resources.fork(), self._routes.fork()
        forked._stored, forked._dataplanes = Overlay(self._stored), Overlay(self._dataplanes)
        forked._gateways, forked._by_secret = Overlay(self._gateways), Overlay(self._by_secret)
        return forked

    def __iter__(self) -> Iterator[StoredResource]:
        """The MeshGateways and MeshGatewayRoutes, in no order."""
        return iter(self._stored.values())

    def __bool__(self) -> bool:
        # Routes with a targetRef are held with the policies, and known here.
        return bool(self._stored) or bool(len(self._routes))

    def get(self, name: str) -> Gateway | None:
        """What a dataplane is; None where it is no built-in gateway, or selected by no MeshGateway."""
        return self._gateways.get(name)

    def written(self, key: ResourceKey) -> StoredResource | None:
        """A MeshGateway or MeshGatewayRoute as a user wrote it; None where there is none."""
        return self._stored.get(key)

    def selected_by(self, key: ResourceKey) -> list[str]:
        """The dataplanes that are a MeshGateway, or that a MeshGatewayRoute is for. O(gateways of the mesh)."""
        if key.type == MeshGateway.type.name:
            return sorted(name for name, gateway in self._gateways.items() if gateway.name == key.name)
        route = compile_route(self._stored[key].resource, created=self._stored[key].creation_time)
        selectors = () if route is None else route.selectors
        return sorted(
            name
            for name, gateway in self._gateways.items()
            if any(selector.matches(tags) for selector in selectors for tags in gateway.candidates)
        )

    def reading(self, secret: str) -> list[str]:
        """The dataplanes that show a certificate which is kept in a secret, by name. O(gateways of the mesh)."""
        named = self._by_secret.get(secret)
        if not named:
            return []
        return sorted(name for name, gateway in self._gateways.items() if gateway.name in named)

    # What comes and goes. Each says which of the gateways are something else by it.

    def set_dataplane(self, name: str, dataplane: Dataplane | None) -> None:
        """Take in a dataplane that is new or has changed, or forget one (None)."""
        if dataplane is None or not is_builtin(dataplane):
            if name in self._dataplanes:
                del self._dataplanes[name]
                self._gateways.pop(name, None)
            return
        self._dataplanes[name] = dataplane
        self._renew(name)

    def set_gateway(self, key: ResourceKey, stored: StoredResource | None, selected: Selected) -> list[str]:
        """Take in a MeshGateway that is new or has changed, or forget one (None)."""
        before = self._keep(key, stored)
        resources = [each.resource for each in (before, stored) if each is not None]
        gateways = [each for each in resources if isinstance(each, MeshGateway)]
        secrets = frozenset(secret for gateway in gateways for secret in gateway.secrets)
        own = gateways[-1].secrets if stored is not None and gateways else frozenset()
        for secret in secrets:
            named = self._by_secret.pop(secret, frozenset()) - {key.name}
            named |= {key.name} if secret in own else frozenset()
            if named:
                self._by_secret[secret] = named
        selectors = () if stored is None else _selectors(gateways[-1])
        self._resources.set(key, stored, selectors)
        return self._touched(selected(selector for gateway in gateways for selector in _selectors(gateway)))

    def set_route(self, key: ResourceKey, stored: StoredResource | None, selected: Selected) -> list[str]:
        """Take in a route of any kind that is new or has changed, or forget one (None); others than these are none."""
        route = None if stored is None else compile_route(stored.resource, created=stored.creation_time)
        if key.type == MeshGatewayRoute.type.name:
            # The others are held with the policies.
            self._keep(key, stored)
        before = self._routes.set(key, route, () if route is None else route.selectors)
        if before == route:
            return []
        routes = [each for each in (before, route) if each is not None]
        return self._touched(selected(selector for each in routes for selector in each.selectors))

    def _keep(self, key: ResourceKey, stored: StoredResource | None) -> StoredResource | None:
        before = self._stored.pop(key, None)
        if stored is not None:
            self._stored[key] = stored
        return before

    def _touched(self, names: set[str]) -> list[str]:
        return [name for name in sorted(names) if name in self._dataplanes and self._renew(name)]

    def _renew(self, name: str) -> bool:
        """Look anew at what a gateway is; whether that is something else."""
        before, after = self._gateways.get(name), self._gateway(self._dataplanes[name])
        if before == after:
            return False
        self._gateways.pop(name, None)
        if after is not None:
            self._gateways[name] = after
        return True

    def _gateway(self, dataplane: Dataplane) -> Gateway | None:
        assert dataplane.gateway is not None
        own = dict(dataplane.gateway.tags)
        found = self._resources.match(TagSet(own))
        if not found:
            return None
        # The most specific one; of several the last created, then the first by name.
        best, _ = max(found, key=lambda each: (each[1], each[0].creation_time, selection.descending(_name(each[0]))))
        resource = best.resource
        assert isinstance(resource, MeshGateway)
        tags = [{**own, **resource.tags, **listener.tags} for listener in resource.listeners]
        candidates = listener_candidates(dataplane, resource.name, tags)
        return Gateway(
            resource.name,
            tuple(
                attached(listener, (route for route, _ in self._routes.match(candidate)))
                for listener, candidate in zip(resource.listeners, candidates, strict=True)
            ),
            candidates,
        )


class _Numbered(Generic[V]):
    """Values under numbers, with selectors over tags."""

    def __init__(self) -> None:
        self._numbers: MutableMapping[ResourceKey, int] = {}
        self._values: MutableMapping[int, V] = {}
        self._next = 0
        self._free: list[int] = []
        self._selectors = SelectorSet()

    def fork(self) -> _Numbered[V]:
        forked = _Numbered[V]()
        forked._numbers, forked._values = Overlay(self._numbers), Overlay(self._values)
        forked._next, forked._selectors = self._next, self._selectors
        return forked

    def __len__(self) -> int:
        return len(self._numbers)

    def set(self, key: ResourceKey, value: V | None, selectors: Iterable[TagSelector]) -> V | None:
        """Put a value in the place of what was there, which is returned. O(√values) amortised."""
        number = self._numbers.pop(key, None)
        before = None
        if number is not None:
            before = self._values.pop(number)
            self._selectors = self._selectors.removed([number])
            self._free.append(number)
        # What selects nobody is not there.
        wanted = list(selectors)
        if value is not None and wanted:
            number = self._free.pop() if self._free else self._next
            self._next = max(self._next, number + 1)
            self._numbers[key], self._values[number] = number, value
            self._selectors = self._selectors.added((number, selector) for selector in wanted)
        return before

    def match(self, tags: TagSet) -> list[tuple[V, tuple[int, int]]]:
        """The values of which a selector matches, each with the best rank."""
        return [(self._values[number], rank) for number, rank in self._selectors.match(tags)]


def _selectors(gateway: MeshGateway) -> tuple[TagSelector, ...]:
    return tuple(TagSelector(dict(selector.match)) for selector in gateway.selectors)


def _name(stored: StoredResource) -> str:
    return stored.resource.name
