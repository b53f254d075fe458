"""All that one Envoy should hold: a tuple of references to layers.

In: layers. Out: for each type the resources, their versions and the version of the type. Never: who asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType

from kumafast._core import SnapshotDigest, untrack
from kumafast.snapshot.layer import Change, Layer
from kumafast.snapshot.resource import TypeUrl, Version, XdsResource

_EMPTY: Mapping[str, XdsResource] = MappingProxyType({})


def digest_of(resources: Mapping[str, XdsResource]) -> Version:
    """The version of a set of resources by name: an order-free digest, so that equal content has an equal version."""
    items = ((name, resource.version) for name, resource in resources.items())
    return Version(SnapshotDigest(items).value.hex())


_DIGEST_OF_NOTHING = digest_of({})


class _Content:
    """All resources of one type; shared by the snapshots that hold the same, with what is known of it."""

    __slots__ = ("_digest", "_total", "_versions", "hides", "resources", "since")

    def __init__(self, resources: dict[str, XdsResource], *, hides: bool = False) -> None:
        self.resources = resources
        self.hides = hides
        """Whether a name stands in two layers, so that one of them does not count."""
        self.since: tuple[Version, tuple[str, ...]] | None = None
        """The digest of the content that this was made from, and the names whose content differs."""
        self._total: SnapshotDigest | None = None
        self._digest: Version | None = None
        self._versions: Mapping[str, Version] | None = None
        untrack(self, resources)

    @property
    def digest(self) -> Version:
        if self._digest is None:
            self._digest = Version(self._sum().value.hex())
        return self._digest

    @property
    def versions(self) -> Mapping[str, Version]:
        if self._versions is None:
            self._versions = {name: resource.version for name, resource in self.resources.items()}
        return self._versions

    def _sum(self) -> SnapshotDigest:
        if self._total is None:
            self._total = SnapshotDigest((name, each.version) for name, each in self.resources.items())
        return self._total

    def changed(self, changes: Sequence[Change]) -> _Content | None:
        """The content after these changes: O(them), and a copy of the references. None where one is not to be seen."""
        resources = self.resources.copy()
        total = SnapshotDigest()
        total.add_all(self._sum())
        for change in changes:
            if self.hides and any(resources[name] is not was for name, was in change.before.items()):
                return None
            resources.update(change.after)
            total.add_all(change.delta)
        made = _Content(resources, hides=self.hides)
        made._total = total
        names = changes[0].after if len(changes) == 1 else {name: None for each in changes for name in each.after}
        made.since = (self.digest, tuple(names))
        untrack(made.since, made.since[1])
        return made


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

    __slots__ = ("__weakref__", "_contents", "_default_version", "_named_versions", "layers")

    def __init__(
        self,
        layers: Iterable[Layer] = (),
        *,
        versions: Mapping[str, str] | None = None,
        default_version: str | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self._named_versions = dict(versions) if versions else None
        self._default_version = default_version
        # By type, once somebody asks.
        self._contents: dict[str, _Content] | None = None
        # Only layers and resources follow, which refer to nothing: no cycle comes of it.
        untrack(self, self.layers)

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
        snapshot._contents = self._changed(layers)
        return snapshot

    def _changed(self, layers: Mapping[int, Layer]) -> dict[str, _Content] | None:
        """The content once these layers are in their places; None where names come, go or hide each other."""
        by_type: dict[str, list[Change]] = {}
        # In the order of the layers, so that names come as they stand.
        for place in sorted(layers):
            changes = self.layers[place].changes_to(layers[place])
            if changes is None:
                return None
            for type_url, change in changes.items():
                by_type.setdefault(type_url, []).append(change)
        contents = self._by_type().copy()
        for type_url, several in by_type.items():
            changed = contents[type_url].changed(several)
            if changed is None:
                return None
            contents[type_url] = changed
        untrack(contents)
        return contents

    def changed_since(self, type_url: str, digest: str) -> tuple[str, ...] | None:
        """The names of a type whose content differs from that of the digest; None where that is not known.

        It is known of the same content, and of the snapshot that this one was made from, which has the same names.
        """
        content = self._by_type().get(type_url)
        if content is None:
            return None
        if content.digest == digest:
            return ()
        since = content.since
        return since[1] if since is not None and since[0] == digest else None

    def _by_type(self) -> dict[str, _Content]:
        if self._contents is None:
            found: dict[str, dict[str, XdsResource]] = {}
            counts: Counter[str] = Counter()
            for layer in self.layers:
                for resource in layer.resources:
                    found.setdefault(resource.type_url, {})[resource.name] = resource
                    counts[resource.type_url] += 1
            self._contents = {
                type_url: _Content(resources, hides=len(resources) < counts[type_url])
                for type_url, resources in found.items()
            }
            untrack(self._contents)
        return self._contents

    @property
    def type_urls(self) -> tuple[TypeUrl, ...]:
        """The types of which there is at least one resource."""
        return tuple(TypeUrl(type_url) for type_url in self._by_type())

    def resources(self, type_url: str) -> Mapping[str, XdsResource]:
        """The resources of a type by name."""
        content = (self._contents or self._by_type()).get(type_url)
        return _EMPTY if content is None else content.resources

    def resource_versions(self, type_url: str) -> Mapping[str, Version]:
        """The versions of a type's resources by name."""
        content = self._by_type().get(type_url)
        return {} if content is None else content.versions

    def digest(self, type_url: str) -> Version:
        """The digest of a type's whole content, whatever its version is called."""
        content = (self._contents or self._by_type()).get(type_url)
        if content is None:
            return _DIGEST_OF_NOTHING
        return content._digest or content.digest

    def version(self, type_url: str) -> Version:
        """What a type's whole content goes out as: the name that the snapshot was given for it, else its digest."""
        named = self._default_version
        if self._named_versions is not None:
            named = self._named_versions.get(type_url, named)
        return self.digest(type_url) if named is None else Version(named)

    @property
    def named_versions(self) -> Mapping[str, str]:
        """The names that it was given for the versions of types, by type URL."""
        return MappingProxyType(self._named_versions or {})

    @property
    def default_version(self) -> str | None:
        """The name that it was given for the versions of all other types; None where those are digests."""
        return self._default_version

    def content_key(self) -> Hashable:
        """What is equal for snapshots that hold the same and call its versions the same."""
        digests = frozenset([(type_url, content.digest) for type_url, content in self._by_type().items()])
        named = frozenset(self._named_versions.items()) if self._named_versions else None
        return (digests, named, self._default_version)

    def has_content_of(self, other: Snapshot) -> bool:
        """Whether the other snapshot holds the same resources; names of versions do not count."""
        if self is other or self.layers == other.layers:
            return True
        mine, theirs = self._by_type(), other._by_type()
        if mine.keys() != theirs.keys():
            return False
        for type_url, content in mine.items():
            other_content = theirs[type_url]
            if content is not other_content and content.digest != other_content.digest:
                return False
        return True

    def has_version_names_of(self, other: Snapshot) -> bool:
        """Whether both snapshots were given the same names for the versions of their types."""
        return (self._named_versions, self._default_version) == (other._named_versions, other._default_version)
