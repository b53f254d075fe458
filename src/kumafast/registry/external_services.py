"""The external services of one mesh: which of them serve a destination, which of them a secret is for.

In: external services and TrafficPermissions that come, change and go. Out: those with all tags of a destination, from
an index; who may reach each. Never: the content of a secret, or who reaches them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, MutableMapping

from kumafast._core import TagIndex, TagSelector, TagSet
from kumafast.matching import CompiledPolicy
from kumafast.registry.external_permissions import Clients, ExternalPermissions
from kumafast.registry.overlay import Index, IndexOverlay, Overlay
from kumafast.registry.reach import Tags as DestinationTags
from kumafast.resources import ExternalService, ResourceKey
from kumafast.resources.fields import Tags
from kumafast.resources.policies.traffic_permission import TrafficPermission
from kumafast.resources.tags import SERVICE_TAG

# Most dataplanes are instances of a service, with the tags of its others.
_PERMITTED_MAX = 4_096


class ExternalServices:
    """One mesh's external services. One writer; the event loop that owns the registry."""

    def __init__(self) -> None:
        self._services: MutableMapping[str, ExternalService] = {}
        self._index: Index = TagIndex()
        self._ids: MutableMapping[str, int] = {}
        self._names: MutableMapping[int, str] = {}
        self._next_id = 0
        self._free_ids: list[int] = []
        self._by_secret: MutableMapping[str, set[str]] = {}
        # How many are instances of each service.
        self._counts: MutableMapping[str, int] = {}
        self._permissions = ExternalPermissions()
        # Which of them those with some tags may reach, until something here changes.
        self._permitted: dict[tuple[Tags, ...], frozenset[str]] = {}

    def fork(self) -> ExternalServices:
        """The same, to be changed on their own; they share with these, and are good until these change."""
        assert isinstance(self._index, TagIndex)
        forked = ExternalServices()
        forked._services = Overlay(self._services)
        forked._index = IndexOverlay(self._index)
        forked._ids, forked._names = Overlay(self._ids), Overlay(self._names)
        # What comes gets new numbers: those that are free here are a list that is not to be copied.
        forked._next_id = self._next_id
        forked._by_secret = Overlay(self._by_secret, copy=set.copy)
        forked._permissions, forked._counts = self._permissions.fork(), Overlay(self._counts)
        return forked

    def __iter__(self) -> Iterator[ExternalService]:
        return iter(self._services.values())

    def __len__(self) -> int:
        return len(self._services)

    def get(self, name: str) -> ExternalService | None:
        """One of them as it is now."""
        return self._services.get(name)

    @property
    def services(self) -> Collection[str]:
        """The services that they are instances of."""
        return self._counts.keys()

    def serving(self, destination: DestinationTags) -> list[ExternalService]:
        """Those that have all tags of the destination, by name. O(those found)."""
        if not self._services:
            return []
        found = self._index.match(TagSelector(dict(destination)))
        return [self._services[name] for name in sorted(self._names[number] for number in found)]

    def reading(self, secret: str) -> list[ExternalService]:
        """Those that a secret of the mesh is for."""
        return [self._services[name] for name in sorted(self._by_secret.get(secret, ()))]

    def clients(self, service: ExternalService) -> Clients:
        """Who may reach one of them."""
        return self._permissions.clients(TagSet(service.tags))

    def permitted(self, tags: tuple[Tags, ...]) -> frozenset[str]:
        """Which of them a dataplane with inbounds of these tags may reach: one object for all with the same tags.

        O(them) for the first of these.
        """
        found = self._permitted.get(tags)
        if found is None:
            if len(self._permitted) >= _PERMITTED_MAX:
                self._permitted.clear()
            inbounds = [TagSet(each) for each in tags]
            found = self._permitted[tags] = frozenset(
                name for name, service in self._services.items() if is_among(inbounds, self.clients(service))
            )
        return found

    def permit(
        self, key: ResourceKey, permission: TrafficPermission | None, policies: Iterable[CompiledPolicy]
    ) -> list[ExternalService]:
        """Take in a TrafficPermission that is new or has changed, or forget one (None); those that it is about."""
        self._permitted.clear()
        selectors = self._permissions.set(key, permission, policies)
        if selectors is None:
            return list(self._services.values())
        if not self._services:
            return []
        numbers = {number for selector in selectors for number in self._index.match(selector)}
        return [self._services[self._names[number]] for number in sorted(numbers)]

    def set(self, name: str, service: ExternalService | None) -> None:
        """Take in one that is new or has changed, or forget one (None)."""
        self._permitted.clear()
        before = self._services.pop(name, None)
        self._count(before, -1)
        self._count(service, 1)
        for secret in _secrets(before):
            self._by_secret[secret].discard(name)
            if not self._by_secret[secret]:
                del self._by_secret[secret]
        if service is None:
            if before is not None:
                number = self._ids.pop(name)
                del self._names[number]
                self._index.remove(number)
                self._free_ids.append(number)
            return
        self._services[name] = service
        for secret in _secrets(service):
            self._by_secret.setdefault(secret, set()).add(name)
        tags = TagSet(service.tags)
        if before is not None:
            self._index.update(self._ids[name], tags)
            return
        # Ids are used again, so that the index stays dense however long the process lives.
        number = self._free_ids.pop() if self._free_ids else self._next_id
        self._next_id = max(self._next_id, number + 1)
        self._ids[name], self._names[number] = number, name
        self._index.add(number, tags)

    def _count(self, service: ExternalService | None, step: int) -> None:
        name = None if service is None else service.tags.get(SERVICE_TAG)
        if name is None:
            return
        count = self._counts.pop(name, 0) + step
        if count:
            self._counts[name] = count


def is_among(inbounds: Iterable[TagSet], clients: Clients) -> bool:
    """Whether a dataplane with these inbounds is one of those who may."""
    return clients is None or any(selector.matches(tags) for selector in clients for tags in inbounds)


def _secrets(service: ExternalService | None) -> Iterable[str]:
    tls = None if service is None else service.tls
    sources = () if tls is None else (tls.ca_cert, tls.client_cert, tls.client_key)
    return {source.secret for source in sources if source is not None and source.secret}
