"""All that one Envoy should hold: a tuple of references to layers.

In: layers. Out: for each type the resources, their versions and the version of the type. Never: who asks for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from weakref import WeakValueDictionary, ref

from kumafast._core import SnapshotDigest, untrack
from kumafast.snapshot.layer import Change, Layer
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, TypeUrl, Version, XdsResource

# What proxies with the same outbounds have in common to the last resource; other types name a proxy's own address.
_SHARED_TYPES = (CLUSTER, ENDPOINT)

# Never written to.
_NONE: dict[frozenset[str], tuple[tuple[str, ...], tuple[XdsResource, ...]]] = {}
_EMPTY: Mapping[str, XdsResource] = MappingProxyType({})


def digest_of(resources: Mapping[str, XdsResource]) -> Version:
    """The version of a set of resources by name: an order-free digest, so that equal content has an equal version."""
    items = ((name, resource.version) for name, resource in resources.items())
    return Version(SnapshotDigest(items).value.hex())


_DIGEST_OF_NOTHING = digest_of({})


class Content:
    """All resources of one type; shared by the snapshots that hold the same, with what is known of it."""

    __slots__ = (
        "__weakref__",
        "_digest",
        "_successor",
        "_total",
        "_versions",
        "again",
        "before",
        "changed_names",
        "changed_resources",
        "hides",
        "is_shared",
        "resources",
    )

    def __init__(self, resources: dict[str, XdsResource], *, hides: bool = False, is_shared: bool = False) -> None:
        self.resources = resources
        """The resources by name."""
        self.hides = hides
        """Whether a name stands in two layers, so that one of them does not count."""
        self.is_shared = is_shared
        """Whether other snapshots find it by its resources."""
        self.before: Version | None = None
        """The digest of the content that it was made from, which has the same names; None where it was made anew."""
        self.changed_names: tuple[str, ...] = ()
        self.changed_resources: tuple[XdsResource, ...] = ()
        """What differs from that, as it is now; one object for all that move from one layer to another."""
        self.again: dict[frozenset[str], tuple[tuple[str, ...], tuple[XdsResource, ...]]] = {} if is_shared else _NONE
        """Where it is shared, what streams note for each other: sets of names that were sent again, with what they are.

        Nothing in it may refer to the content: that would be a cycle that nobody looks for.
        """
        self._total: SnapshotDigest | None = None
        self._digest: Version | None = None
        self._versions: Mapping[str, Version] | None = None
        # What it was last followed by, and after which changes: all snapshots that share it ask for the same. Weak, or
        # a content that stays would keep all that came after it.
        self._successor: tuple[Sequence[Change], ref[Content]] | None = None
        untrack(self, resources)

    @classmethod
    def shared(cls, resources: dict[str, XdsResource]) -> Content:
        """The one content of these very resources, in this order, as long as a snapshot has it."""
        key = _identity(resources)
        content = _SHARED.get(key)
        if content is None:
            content = _SHARED[key] = Content(resources, is_shared=True)
        return content

    @property
    def digest(self) -> Version:
        """The version of all of it."""
        if self._digest is None:
            self._digest = Version(self._sum().value.hex())
        return self._digest

    @property
    def versions(self) -> Mapping[str, Version]:
        """The versions of the resources by name."""
        if self._versions is None:
            self._versions = {name: resource.version for name, resource in self.resources.items()}
        return self._versions

    def _sum(self) -> SnapshotDigest:
        if self._total is None:
            self._total = SnapshotDigest((name, each.version) for name, each in self.resources.items())
        return self._total

    def changed(self, changes: Sequence[Change]) -> Content | None:
        """The content after these changes: O(them), and a copy of the references. None where one is not to be seen.

        Where it is shared it is made once for all who have it.
        """
        if not self.is_shared:
            return self._after(changes)
        found = None
        if self._successor is not None and self._successor[0] == changes:
            found = self._successor[1]()
        if found is None:
            found = self._after(changes)
            if found is not None:
                _SHARED[_identity(found.resources)] = found
                self._successor = (changes, ref(found))
        return found

    def _after(self, changes: Sequence[Change]) -> Content | None:
        resources = self.resources.copy()
        total = self._total or self._sum()
        for change in changes:
            if self.hides and any(resources[name] is not was for name, was in change.before.items()):
                return None
            resources.update(change.after)
            total = total.plus(change.delta)
        made = Content(resources, hides=self.hides, is_shared=self.is_shared)
        made._total = total
        made.before = self._digest or self.digest
        if len(changes) == 1:
            made.changed_names, made.changed_resources = changes[0].names, changes[0].resources
        else:
            several = {name: resource for each in changes for name, resource in each.after.items()}
            made.changed_names, made.changed_resources = tuple(several), tuple(several.values())
            untrack(made.changed_names, made.changed_resources)
        return made


def _identity(resources: Mapping[str, XdsResource]) -> tuple[int, ...]:
    """What is equal for the very same resources in the same order, as long as somebody has them."""
    return tuple(map(id, resources.values()))


def _content(type_url: str, resources: dict[str, XdsResource], *, hides: bool) -> Content:
    if type_url in _SHARED_TYPES and not hides:
        return Content.shared(resources)
    return Content(resources, hides=hides)


_MANY = 16
"""From so many resources on a layer knows them by type, for all snapshots that have it."""

# By `_identity`: a content keeps the resources that its key is made of.
_SHARED: WeakValueDictionary[tuple[int, ...], Content] = WeakValueDictionary()


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
        self._contents: dict[str, Content] | None = None
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
        snapshot = Snapshot.__new__(Snapshot)
        snapshot.layers = tuple(mine)
        snapshot._named_versions, snapshot._default_version = self._named_versions, self._default_version
        snapshot._contents = self._changed(layers)
        untrack(snapshot, snapshot.layers)
        return snapshot

    def _changed(self, layers: Mapping[int, Layer]) -> dict[str, Content] | None:
        """The content once these layers are in their places; None where names come, go or hide each other."""
        by_type: dict[str, tuple[Change, ...]] = {}
        # In the order of the layers, so that names come as they stand.
        for place in sorted(layers) if len(layers) > 1 else layers:
            changes = self.layers[place].changes_to(layers[place])
            if changes is None:
                return None
            for type_url, change in changes.items():
                by_type[type_url] = (*by_type[type_url], change) if type_url in by_type else (change,)
        contents = (self._contents or self._by_type()).copy()
        for type_url, several in by_type.items():
            changed = contents[type_url].changed(several)
            if changed is None:
                return None
            contents[type_url] = changed
        untrack(contents)
        return contents

    def content(self, type_url: str) -> Content | None:
        """All of a type, with what is known of it; None where there is nothing of the type."""
        return (self._contents or self._by_type()).get(type_url)

    def _by_type(self) -> dict[str, Content]:
        if self._contents is None:
            found: dict[str, dict[str, XdsResource]] = {}
            counts: dict[str, int] = {}
            for layer in self.layers:
                resources = layer.resources
                if len(resources) >= _MANY and (by_type := layer.by_type()) is not None:
                    for type_url, named in by_type.items():
                        found.setdefault(type_url, {}).update(named)
                        counts[type_url] = counts.get(type_url, 0) + len(named)
                    continue
                for resource in resources:
                    type_url = resource.type_url
                    if type_url in found:
                        found[type_url][resource.name] = resource
                        counts[type_url] += 1
                    else:
                        found[type_url], counts[type_url] = {resource.name: resource}, 1
            self._contents = {
                type_url: _content(type_url, resources, hides=len(resources) < counts[type_url])
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
        mine, theirs = self._contents or self._by_type(), other._contents or other._by_type()
        if len(mine) != len(theirs):
            return False
        for type_url, content in mine.items():
            held = theirs.get(type_url)
            if content is not held and (
                held is None or (content._digest or content.digest) != (held._digest or held.digest)
            ):
                return False
        return True

    def has_version_names_of(self, other: Snapshot) -> bool:
        """Whether both snapshots were given the same names for the versions of their types."""
        return (self._named_versions, self._default_version) == (other._named_versions, other._default_version)
