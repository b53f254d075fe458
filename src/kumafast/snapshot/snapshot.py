"""All that one Envoy should hold: a tuple of references to layers.

In: layers. Out: for each type the resources, their versions and the version of the type. Never: who asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

from kumafast._core import SnapshotDigest
from kumafast.snapshot.layer import Layer
from kumafast.snapshot.resource import TypeUrl, Version, XdsResource

_EMPTY: Mapping[str, XdsResource] = MappingProxyType({})

_ByType: TypeAlias = dict[str, dict[str, XdsResource]]


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
        self._resource_versions: dict[str, Mapping[str, Version]] = {}

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
        for type_url, digest in self._digests.items():
            if by_type.get(type_url) is self._by_type.get(type_url):
                snapshot._digests[type_url] = digest
        for type_url, versions in self._resource_versions.items():
            if by_type.get(type_url) is self._by_type.get(type_url):
                snapshot._resource_versions[type_url] = versions
        return snapshot

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
            digest = self._digests[type_url] = digest_of(self.resources(type_url))
        return digest

    def version(self, type_url: str) -> Version:
        """What a type's whole content goes out as: the name that the snapshot was given for it, else its digest."""
        named = self._named_versions.get(type_url, self._default_version)
        return self.digest(type_url) if named is None else Version(named)

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
