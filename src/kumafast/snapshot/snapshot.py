"""All that one Envoy should hold: a tuple of references to layers.

In: layers. Out: for each type the resources, their versions and the version of the type. Never: who asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from kumafast._core import SnapshotDigest
from kumafast.snapshot.layer import Layer
from kumafast.snapshot.resource import TypeUrl, Version, XdsResource

_EMPTY: Mapping[str, XdsResource] = MappingProxyType({})


class Snapshot:
    """An immutable picture of one Envoy's configuration.

    A name stands once in a type; where two layers hold it, the later layer counts. A type that no layer mentions is
    empty: an Envoy that asks for it is told so.

    >>> from kumafast.snapshot import Layer, Snapshot, XdsResource
    >>> backend = XdsResource("type.googleapis.com/envoy.config.cluster.v3.Cluster", "backend", b"")
    >>> snapshot = Snapshot([Layer([backend])])
    >>> list(snapshot.resources(backend.type_url))
    ['backend']
    """

    def __init__(self, layers: Iterable[Layer] = ()) -> None:
        self.layers = tuple(layers)
        self._versions: dict[str, Version] = {}

    @classmethod
    def of(cls, *resources: XdsResource) -> Snapshot:
        """A snapshot of just these resources, for callers that do not share layers."""
        return cls([Layer(resources)])

    @cached_property
    def _by_type(self) -> Mapping[str, Mapping[str, XdsResource]]:
        by_type: dict[str, dict[str, XdsResource]] = {}
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

    def version(self, type_url: str) -> Version:
        """The version of a type's whole content: an order-free digest, so equal content has equal versions everywhere."""
        version = self._versions.get(type_url)
        if version is None:
            items = ((resource.name, resource.version) for resource in self.resources(type_url).values())
            version = Version(SnapshotDigest(items).value.hex())
            self._versions[type_url] = version
        return version

    def has_content_of(self, other: Snapshot) -> bool:
        """Whether an Envoy could not tell this snapshot from the other."""
        if self is other or self.layers == other.layers:
            return True
        if self._by_type.keys() != other._by_type.keys():
            return False
        return all(self.version(type_url) == other.version(type_url) for type_url in self._by_type)
