"""Parts of proxies as layers: each made once for all that have it.

In: parts, what policies come to for them. Out: encoded layers. Never: which parts a proxy has.

Nearly every proxy has an inbound of its own, at its own address. All else of it is the same for the instances of a
service: that is one `InboundClass`, and a proxy's own listener is its bytes with a name and an address before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from kumafast.generation import clusters, listeners, names
from kumafast.generation.effects import Collector, Effect, Source
from kumafast.generation.generate import generate, generator_name
from kumafast.generation.policy_effects import collectors_of, effects
from kumafast.generation.proxy import Inbound, Part
from kumafast.matching import Bindings, Setting
from kumafast.memo import remembered
from kumafast.snapshot import Layer, XdsResource
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.listener import placed_listener
from kumafast.templates import TemplatedLayers

Count: TypeAlias = Callable[[str, Layer], None]
"""Told of each layer that a generator made."""

_INBOUND = "inbound"

# Most workloads are alike from their sidecar's side: a port of the host's own, a protocol, the same policies.
_WORKLOADS_MAX = 4_096


class Layers:
    """Parts as layers, each made once for all proxies that have it. A layer lives while a snapshot or plan has it."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._of_part: WeakValueDictionary[Part, Layer] = WeakValueDictionary()
        self._of_inbound: WeakValueDictionary[tuple[BoundInbound, str, int], Layer] = WeakValueDictionary()
        self._joined: WeakValueDictionary[tuple[Layer, ...], Layer] = WeakValueDictionary()
        self._collectors: WeakKeyDictionary[Layer, tuple[Collector, ...]] = WeakKeyDictionary()
        self.templated = TemplatedLayers(count)
        """What templates make of these layers."""

    def of(self, part: Part) -> Layer:
        """The layer of a part, generated and encoded where nobody has it yet."""
        layer = self._of_part.get(part)
        if layer is None:
            layer = self._of_part[part] = Layer(encode(message) for message in generate(part))
            self._count(generator_name(part), layer)
            self.note(layer, collectors_of(part))
        return layer

    def of_inbound(self, inbound: BoundInbound, address: str, port: int, source: Source) -> Layer:
        """The layer of an inbound at an address: equal to `of` the part there, and made of what its class has."""
        if inbound.needs_source:
            return self.of(inbound.part.of(source).at(address, port))
        if inbound.part.tls is not None:
            # Within the listener there are statistics that bear its name.
            return self.of(inbound.part.at(address, port))
        key = (inbound, address, port)
        layer = self._of_inbound.get(key)
        if layer is None:
            name = inbound.part.name or names.inbound_listener_name(address, port)
            listener = placed_listener(name, address, port, inbound.rest)
            layer = self._of_inbound[key] = Layer((inbound.cluster, listener))
            self._count(_INBOUND, layer)
            self.note(layer, inbound.collectors)
        return layer

    def joined(self, parts: Iterable[Part]) -> Layer:
        """One layer with all that these parts stand for, which keeps theirs alive."""
        layers = tuple(map(self.of, parts))
        joined = self._joined.get(layers)
        if joined is None:
            joined = self._joined[layers] = Layer(resource for layer in layers for resource in layer)
            self.note(joined, self.collectors(layers))
        return joined

    def collectors(self, layers: Iterable[Layer]) -> tuple[Collector, ...]:
        """Where what these layers stand for reports to, each once. Asked of every proxy, and most report to nobody."""
        if not self._collectors:
            return ()
        return tuple(dict.fromkeys(each for layer in layers for each in self._collectors.get(layer, ())))

    def note(self, layer: Layer, collectors: tuple[Collector, ...]) -> None:
        """Remember where a layer reports to."""
        if collectors:
            self._collectors[layer] = collectors


class BoundInbound:
    """The inbounds of a class under some policies. Compared by identity: its class has one for equal effects."""

    __slots__ = ("__weakref__", "_cluster", "_rest", "collectors", "needs_source", "part")

    def __init__(self, part: Inbound) -> None:
        self.part = part
        """The inbound at no address."""
        self.needs_source = any(effect.needs_source for effect in part.effects)
        """Whether it is not the same for two proxies, whatever they have in common."""
        self.collectors = collectors_of(part)
        """Where it reports to."""
        self._cluster: XdsResource | None = None
        self._rest: bytes | None = None

    @property
    def cluster(self) -> XdsResource:
        """The workload, encoded; made when first asked for."""
        if self._cluster is None:
            self._cluster = _workload(self.part.as_workload())
        return self._cluster

    @property
    def rest(self) -> bytes:
        """The listener but for its name and address, encoded; made when first asked for."""
        if self._rest is None:
            self._rest = listeners.rest_of_inbound(self.part.at_no_address())
        return self._rest


class InboundClass:
    """The inbounds that differ in their addresses alone."""

    __slots__ = ("__weakref__", "_bound", "_made", "_part", "_subjects")

    def __init__(self, part: Inbound) -> None:
        self._part = part
        self._bound: WeakValueDictionary[tuple[Effect, ...], BoundInbound] = WeakValueDictionary()
        # What they are under the policies of one moment; with the first question of a later moment it goes.
        self._subjects: object = None
        self._made: dict[tuple[Bindings, int], BoundInbound] = {}

    def under(self, bindings: Bindings, position: int) -> BoundInbound:
        """What those are that stand at a position of a dataplane which is bound so: a look-up, but for the first."""
        if self._subjects is not bindings.subjects:
            self._subjects, self._made = bindings.subjects, {}
        bound = self._made.get((bindings, position))
        if bound is None:
            settings = with_proxy(bindings.inbound(position), bindings)
            bound = self._made[bindings, position] = self._with(effects(settings, _INBOUND, self._part.protocol))
        return bound

    def _with(self, found: tuple[Effect, ...]) -> BoundInbound:
        bound = self._bound.get(found)
        if bound is None:
            bound = self._bound[found] = BoundInbound(self._part.with_effects(found))
        return bound


class InboundClasses:
    """The classes that some plan has an inbound of."""

    def __init__(self) -> None:
        self._classes: WeakValueDictionary[Inbound, InboundClass] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._classes)

    def of(self, part: Inbound) -> InboundClass:
        """The class of an inbound, given at no address and under no policies."""
        found = self._classes.get(part)
        if found is None:
            found = self._classes[part] = InboundClass(part)
        return found


class InboundSlot:
    """An inbound of one proxy, as it was last asked for. `source` is the proxy itself, of which anybody may ask."""

    __slots__ = ("_address", "_bound", "_class", "_layer", "_port", "_position", "_source")

    def __init__(self, of: InboundClass, address: str, port: int, position: int, source: Source) -> None:
        self._class = of
        self._source = source
        self._address, self._port = address, port
        self._position = position
        self._bound: BoundInbound | None = None
        self._layer: Layer | None = None

    def layer(self, bindings: Bindings, layers: Layers) -> Layer:
        """Its layer under these policies."""
        bound = self._class.under(bindings, self._position)
        if self._layer is None or bound is not self._bound:
            self._bound, self._layer = bound, layers.of_inbound(bound, self._address, self._port, self._source)
        return self._layer


def with_proxy(settings: tuple[Setting, ...], bindings: Bindings) -> tuple[Setting, ...]:
    """What holds for an inbound or outbound, together with what holds for its proxy."""
    of_proxy = bindings.proxy
    return (*settings, *of_proxy) if of_proxy else settings


@remembered(_WORKLOADS_MAX)
def _workload(inbound: Inbound) -> XdsResource:
    return encode(clusters.local_cluster(inbound))
