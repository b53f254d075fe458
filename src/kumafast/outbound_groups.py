"""The outbounds of proxies that have the same ones, and what policies make of them.

In: ports, what they lead to, bindings. Out: a layer for each way in which such proxies are bound, made once.
Never: where outbounds lead, or who has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from kumafast.bound_parts import asks_of_senders, listening, of_sender, sent_by, with_effects
from kumafast.generation.effects import Source
from kumafast.generation.modifications import OUTBOUND
from kumafast.generation.proxy import Destination
from kumafast.layers import Layers
from kumafast.matching import Bindings
from kumafast.outbound_ports import Port, firsts, listener, services
from kumafast.reached import Reached
from kumafast.snapshot import Layer

Cluster: TypeAlias = tuple[Reached, Destination]
"""Where a cluster's endpoints are, and the cluster itself."""


class OutboundGroup:
    """The outbounds of all proxies that have the same ones."""

    origin = OUTBOUND
    __slots__ = (
        "__weakref__",
        "_asks",
        "_clusters",
        "_inside",
        "_layers",
        "_listeners",
        "_made",
        "_moment",
        "called",
        "reached",
    )

    def __init__(
        self,
        layers: Layers,
        ports: Iterable[Port],
        clusters: Iterable[Cluster],
        *,
        binds: bool,
        reuses_port: bool,
        is_named: bool = False,
    ) -> None:
        """`is_named`: listeners are called by what they lead to, where that is a port of a service."""
        reached = tuple(clusters)
        self.reached = tuple(each for each, _ in reached)
        self.called = {
            each: cluster.cluster_name
            for each, cluster in reached
            if cluster.cluster_name != each.destination.cluster_name
        }
        """Those of them whose clusters have other names than for most."""
        # Each with what policies about it are about, and so are the listeners.
        self._clusters = tuple((each.subject, destination) for each, destination in reached)
        self._layers = layers
        held = tuple(ports)
        named = firsts(held) if is_named else {}
        self._listeners = tuple(
            (subject, listener(port, binds=binds, reuses_port=reuses_port, name=named.get(port[:2], "")))
            for port in held
            for subject in port[3:4]
        )
        # The services of the mesh that each leads to, whatever service it is called by.
        self._inside = tuple(frozenset(service for each in led for service in services(each)) for *_, led in held)
        # What has been made under the policies of one moment; with the first question of a later moment it goes.
        self._moment: object = None
        self._made: dict[Bindings | tuple[Bindings, str], Layer] = {}
        # Whether a policy of that moment asks who sends.
        self._asks = False

    def layer(self, bindings: Bindings, source: Source, sender: Callable[[], str]) -> Layer:
        """The listeners and clusters under these policies: a look-up, but for the first proxy that is bound so.

        Where a policy asks who sends, also by what the proxy says of itself: then those with the same tags share. Where
        an effect needs to know whose ports these are, proxies share the clusters alone.
        """
        if self._moment is not bindings.subjects:
            self._moment, self._made, self._asks = bindings.subjects, {}, False
        layer = self._made.get(bindings)
        return self._layer_of_sender(bindings, source, sender) if layer is None else layer

    def _layer_of_sender(self, bindings: Bindings, source: Source, sender: Callable[[], str]) -> Layer:
        layer = self._made.get((bindings, sender())) if self._asks else None
        if layer is None:
            parts = (listening(part, bindings, subject) for subject, part in self._listeners)
            of_group = zip(parts, self._inside, strict=True)
            outbounds = [asks_of_senders(part, bindings, inside) for part, inside in of_group]
            clusters = (with_effects(part, bindings, subject, "destination") for subject, part in self._clusters)
            is_asked = any(effect.asks_sender for part in outbounds for effect in part.effects)
            self._asks = self._asks or is_asked
            said = [of_sender(part, sender()) for part in outbounds] if is_asked else outbounds
            listeners = [sent_by(source, part) for part in said]
            layer = self._layers.joined([*listeners, *clusters])
            if listeners == said:
                self._made[(bindings, sender()) if is_asked else bindings] = layer
        return layer
