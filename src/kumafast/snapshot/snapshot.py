"""All that one Envoy should hold: a tuple of references to layers.

In: layers. Out: for each type the resources, their versions and the version of the type. Never: who asks for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

from kumafast._core import SnapshotDigest
from kumafast.snapshot.layer import Layer
from kumafast.snapshot.resource import TypeUrl, Version, XdsResource

_EMPTY: Mapping[str, XdsResource] = MappingProxyType({})

_ByType: TypeAlias = dict[str, dict[str, XdsResource]]

# From so many resources on, a digest is worth keeping in the form to which a change can be added.
_SUM_MIN = 16


def digest_of(resources: Mapping[str, XdsResource]) -> Version:
    """The version of a set of resources by name: an order-free digest, so that equal content has an equal version."""
    items = ((name, resource.version) for name, resource in resources.items())
    return Version(SnapshotDigest(items).value.hex())


class Snapshot:
    """An immutable picture of one Envoy's configuration.

    A name stands once in a type; where two layers hold it, the later layer counts. A type that no layer mentions is
    empty: an Envoy that asks for it is told so. `versions` (by type URL) and `default_version` are for callers with
    version names of their own; without them a type's version is the digest of its content.

    >>> from kumafast.snapshot import Layer, Snapshot, XdsResource
    >>> backend = XdsResource("type.googleapis.com/envoy.config.cluster.v3.Cluster", "backend", b"")
    >>> snapshot = Snapshot([Layer([backend])], default_version="7")
    >>> list(snapshot.resources(backend.type_url)), snapshot.version(backend.type_url)
    (['backend'], '7')
    """

    def __init__(
        self,
        layers: Iterable[Layer] = (),
        *,
        versions: Mapping[str, str] | None = None,
        default_version: str | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self._named_versions = dict(versions or {})
        self._default_version = default_version
        self._digests: dict[str, Version] = {}
        self._sums: dict[str, SnapshotDigest] = {}
        self._resource_versions: dict[str, Mapping[str, Version]] = {}
        # For each type the digest of the snapshot that this one was made from, and the names whose content differs.
        self._since: dict[str, tuple[Version, tuple[str, ...]]] = {}

    @classmethod
    def of(cls, *resources: XdsResource) -> Snapshot:
        """A snapshot of just these resources, for callers that do not share layers."""
        return cls([Layer(resources)])

    def replaced(self, layers: Mapping[int, Layer]) -> Snapshot:
        """This snapshot with other layers at some places: what does not differ is shared and not looked at again."""
        mine = list(self.layers)
        for place, layer in layers.items():
            mine[place] = layer
        snapshot = Snapshot(mine, versions=self._named_versions, default_version=self._default_version)
        by_type = self._by_type.copy()
        for place, layer in layers.items():
            if not _replace(by_type, self._by_type, self.layers[place], layer):
                # Names come, go or hide each other: that is for the long way.
                return snapshot
        # A cached property is what stands under its name in the instance.
        snapshot.__dict__["_by_type"] = by_type
        for type_url, resources in by_type.items():
            if resources is self._by_type[type_url]:
                snapshot._take_over(type_url, self)
            else:
                names = [now.name for layer in layers.values() for now in layer if now.type_url == type_url]
                snapshot._derive(type_url, self, names)
        return snapshot

    def _take_over(self, type_url: str, other: Snapshot) -> None:
        """Know of a type what the other snapshot, which holds the same of it, knows already."""
        if type_url in other._digests:
            self._digests[type_url] = other._digests[type_url]
        if type_url in other._sums:
            self._sums[type_url] = other._sums[type_url]
        if type_url in other._resource_versions:
            self._resource_versions[type_url] = other._resource_versions[type_url]

    def _derive(self, type_url: str, other: Snapshot, names: Iterable[str]) -> None:
        """Know of a type what follows from what the other snapshot knows, where only these names differ."""
        before, after = other._by_type[type_url], self._by_type[type_url]
        changed = tuple(name for name in dict.fromkeys(names) if before[name].version != after[name].version)
        digest, total, versions = (
            other._digests.get(type_url),
            other._sums.get(type_url),
            other._resource_versions.get(type_url),
        )
        if digest is not None:
            self._since[type_url] = (digest, changed)
        if total is not None:
            derived = self._sums[type_url] = SnapshotDigest()
            derived.add_all(total)
            for name in changed:
                derived.replace(name, before[name].version, after[name].version)
            self._digests[type_url] = Version(derived.value.hex())
        if versions is not None:
            self._resource_versions[type_url] = {**versions, **{name: after[name].version for name in changed}}

    def changed_since(self, type_url: str, digest: str) -> tuple[str, ...] | None:
        """The names of a type whose content differs from that of the digest; None where that is not known.

        It is known of the snapshot that this one was made from, which has the same names.
        """
        since = self._since.get(type_url)
        return since[1] if since is not None and since[0] == digest else None

    @cached_property
    def _by_type(self) -> _ByType:
        by_type: _ByType = {}
        for layer in self.layers:
            for resource in layer:
                by_type.setdefault(resource.type_url, {})[resource.name] = resource
        return by_type

    @property
    def type_urls(self) -> tuple[TypeUrl, ...]:
        """The types of which there is at least one resource."""
        return tuple(TypeUrl(type_url) for type_url in self._by_type)

    def resources(self, type_url: str) -> Mapping[str, XdsResource]:
        """The resources of a type by name."""
        return self._by_type.get(type_url, _EMPTY)

    def resource_versions(self, type_url: str) -> Mapping[str, Version]:
        """The versions of a type's resources by name."""
        versions = self._resource_versions.get(type_url)
        if versions is None:
            versions = {name: resource.version for name, resource in self.resources(type_url).items()}
            self._resource_versions[type_url] = versions
        return versions

    def digest(self, type_url: str) -> Version:
        """The digest of a type's whole content, whatever its version is called."""
        digest = self._digests.get(type_url)
        if digest is None:
            resources = self.resources(type_url)
            total = SnapshotDigest((name, resource.version) for name, resource in resources.items())
            if len(resources) >= _SUM_MIN:
                self._sums[type_url] = total
            digest = self._digests[type_url] = Version(total.value.hex())
        return digest

    def version(self, type_url: str) -> Version:
        """What a type's whole content goes out as: the name that the snapshot was given for it, else its digest."""
        named = self._named_versions.get(type_url, self._default_version)
        return self.digest(type_url) if named is None else Version(named)

    def content_key(self) -> Hashable:
        """What is equal for snapshots that hold the same and call its versions the same."""
        digests = frozenset((type_url, self.digest(type_url)) for type_url in self._by_type)
        return (digests, frozenset(self._named_versions.items()), self._default_version)

    def has_content_of(self, other: Snapshot) -> bool:
        """Whether the other snapshot holds the same resources; names of versions do not count."""
        if self is other or self.layers == other.layers:
            return True
        if self._by_type.keys() != other._by_type.keys():
            return False
        return all(
            mine is other._by_type[type_url] or self.digest(type_url) == other.digest(type_url)
            for type_url, mine in self._by_type.items()
        )

    def has_version_names_of(self, other: Snapshot) -> bool:
        """Whether both snapshots were given the same names for the versions of their types."""
        return (self._named_versions, self._default_version) == (other._named_versions, other._default_version)


def _replace(by_type: _ByType, before: _ByType, old: Layer, new: Layer) -> bool:
    """Put what `new` holds in the place of what `old` held; whether that was all that there was to do.

    `by_type` shares the inner dicts of `before` until something in them is another.
    """
    if len(old) != len(new):
        return False
    for was, now in zip(old, new, strict=True):
        if (was.type_url, was.name) != (now.type_url, now.name):
            return False
        held = by_type[was.type_url]
        if held[was.name] is not was:
            return False
        if held is before[was.type_url]:
            held = by_type[was.type_url] = held.copy()
        held[was.name] = now
    return True
