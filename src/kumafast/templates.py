"""Finished layers as templates of users want them, each made once for all proxies that have it so.

In: a layer, its origin, a template. Out: the layer modified, or the same where nothing in it is concerned; where that
cannot be done, why. Never: a change of a layer, or a layer that is kept when no proxy has it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from kumafast.errors import ModificationError
from kumafast.generation import modifications
from kumafast.generation.modifications import CLUSTER, LISTENER, Template
from kumafast.resources import ResourceKey
from kumafast.snapshot import Layer, XdsResource
from kumafast.snapshot import resource as xds
from kumafast.snapshot.encoding import decode, encode

NOTHING = Layer(())
"""Stands where a proxy has nothing, so that every layer of a snapshot has its place."""

_KINDS = {xds.CLUSTER: CLUSTER, xds.LISTENER: LISTENER}
_TYPE_URLS = {kind: type_url for type_url, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Failure:
    """That a template cannot be applied to a proxy, which then keeps what it has but for endpoints."""

    message: str
    """Which step of the template, and why."""
    type_url: str = ""
    """Of the resource that it cannot be applied to; empty, like its name, where it is none in particular."""
    resource: str = ""
    policies: tuple[ResourceKey, ...] = ()
    """Those that the template is from."""
    revision: int = field(default=0, compare=False)
    """The store's revision at which it was tried last."""

    @classmethod
    def of(cls, error: ModificationError, policies: tuple[ResourceKey, ...], *, revision: int = 0) -> Failure:
        """The failure that an error tells of."""
        kind, name = error.resource or ("", "")
        return cls(str(error), _TYPE_URLS.get(kind, ""), name, policies, revision)


class TemplatedLayer(Layer):
    """What a template made of a layer, or added."""

    __slots__ = ()


class TemplatedLayers:
    """What is made of layers. What a layer was made from lives as long as it does, and no longer because of this."""

    def __init__(self, count: Callable[[str, Layer], None]) -> None:
        self._count = count
        self._made: WeakValueDictionary[tuple[Layer, str, Template], Layer] = WeakValueDictionary()

    def modified(self, layer: Layer, origin: str, template: Template) -> Layer:
        """A layer of one origin under a template. Raises `ModificationError` where a step cannot be done to it."""
        if not template.keeps(origin):
            return NOTHING
        named = ((_KINDS[each.type_url], each.name) for each in layer if each.type_url in _KINDS)
        if not template.concerns(origin, named):
            return layer
        return self._remembered(layer, origin, template, _modify)

    def completed(self, layer: Layer, template: Template) -> Layer:
        """A layer, and what the template adds. Raises `ModificationError`."""
        if not template.adds:
            return layer
        return self._remembered(layer, modifications.ADDED, template, _add)

    def _remembered(
        self, layer: Layer, origin: str, template: Template, make: Callable[[Layer, str, Template], Layer]
    ) -> Layer:
        key = (layer, origin, template)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make(layer, origin, template)
            self._count("template", made)
        return made


def _modify(layer: Layer, origin: str, template: Template) -> Layer:
    others = [each for each in layer if each.type_url not in _KINDS]
    messages = (decode(each) for each in layer if each.type_url in _KINDS)
    before = {(each.type_url, each.name): each for each in layer}
    now = map(encode, modifications.modified(template, origin, messages))
    return TemplatedLayer([*(_same(before, each) for each in now), *others])


def _same(before: dict[tuple[xds.TypeUrl, str], XdsResource], resource: XdsResource) -> XdsResource:
    """The resource as it was where it is the same, so that its bytes are kept once."""
    held = before.get((resource.type_url, resource.name))
    return held if held is not None and held.version == resource.version else resource


def _add(layer: Layer, origin: str, template: Template) -> Layer:
    return TemplatedLayer([*layer, *map(encode, modifications.added(template))])
