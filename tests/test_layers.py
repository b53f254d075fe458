"""Parts as layers: what proxies have in common is made once, and is what each part alone would be."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from kumafast.generation.access_log import AccessLog, OtelLog
from kumafast.generation.effects import Collector, Effect, Source
from kumafast.generation.generate import generate
from kumafast.generation.policies.mesh_timeout import InboundTimeouts
from kumafast.generation.proxy import Inbound, InboundTls
from kumafast.layers import BoundInbound, InboundClasses, Layers
from kumafast.snapshot import Layer
from kumafast.snapshot.encoding import encode

_PART = Inbound(
    address="",
    port=0,
    service_address="127.0.0.1",
    service_port=8080,
    service="web",
    protocol="http",
    tags=(("kuma.io/protocol", "http"), ("kuma.io/service", "web"), ("version", "v1")),
)
_ANYBODY = Source("default", "unknown", "10.0.0.1")
_TIMEOUTS: tuple[Effect, ...] = (InboundTimeouts(),)


class _Counted:
    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, generator: str, layer: Layer) -> None:
        self.made.append(generator)


@pytest.mark.parametrize("protocol", ["http", "grpc", "tcp"])
@pytest.mark.parametrize("effects", [(), _TIMEOUTS], ids=["no policies", "policies"])
@pytest.mark.parametrize("tls", [None, InboundTls("default"), InboundTls("default", is_permissive=True)])
@pytest.mark.parametrize(("address", "port"), [("10.0.0.1", 80), ("::1", 65_535)])
@pytest.mark.parametrize("binds", [True, False])
def test_an_inbound_of_a_class_is_what_the_part_alone_is(
    protocol: str, effects: tuple[Effect, ...], tls: InboundTls | None, address: str, port: int, binds: bool
) -> None:
    counted = _Counted()
    part = replace(_PART, protocol=protocol, tls=tls, effects=effects, binds_to_port=binds)
    layer = Layers(counted).of_inbound(BoundInbound(part), address, port, _ANYBODY)
    alone = [encode(message) for message in generate(replace(part, address=address, port=port))]
    assert list(layer) == alone
    assert [resource.body for resource in layer] == [resource.body for resource in alone]
    assert counted.made == ["inbound"]


def test_an_inbound_whose_proxy_counts_is_not_that_of_another() -> None:
    effects: tuple[Effect, ...] = (AccessLog("%KUMA_SOURCE_ADDRESS%", path="/tmp/log"),)
    layers, bound = Layers(_Counted()), BoundInbound(replace(_PART, effects=effects))
    listeners = [
        layers.of_inbound(bound, "10.0.0.1", 80, replace(_ANYBODY, address=address)).resources[1].body
        for address in ("10.0.0.1", "10.0.0.2")
    ]
    assert b"10.0.0.2" not in listeners[0]
    assert b"10.0.0.2" in listeners[1]


def test_a_layer_tells_where_it_reports_to() -> None:
    collector = Collector("meshaccesslog:opentelemetry:otel:4317", "otel", 4317, is_http2=True)
    effects: tuple[Effect, ...] = (OtelLog(collector, body="a request"),)
    layers = Layers(_Counted())
    silent = layers.of_inbound(BoundInbound(_PART), "10.0.0.1", 80, _ANYBODY)
    assert layers.collectors([silent]) == ()
    both = [
        layers.of_inbound(BoundInbound(replace(_PART, effects=effects)), "10.0.0.1", 80, _ANYBODY),
        layers.of(replace(_PART, effects=effects)),
    ]
    assert layers.collectors([silent, *both]) == (collector,)


def test_the_instances_of_a_service_share_their_cluster_and_each_has_its_listener_once() -> None:
    counted = _Counted()
    layers, bound = Layers(counted), BoundInbound(_PART)
    one, other = layers.of_inbound(bound, "10.0.0.1", 80, _ANYBODY), layers.of_inbound(bound, "10.0.0.2", 80, _ANYBODY)
    assert one.resources[0] is other.resources[0]
    assert one.resources[1] != other.resources[1]
    assert layers.of_inbound(bound, "10.0.0.1", 80, _ANYBODY) is one
    assert counted.made == ["inbound", "inbound"]


def test_a_class_lives_as_long_as_somebody_is_of_it() -> None:
    classes = InboundClasses()
    held = classes.of(_PART)
    assert classes.of(replace(_PART)) is held
    assert classes.of(replace(_PART, service="api")) is not held
    assert len(classes) == 1
    del held
    gc.collect()
    assert len(classes) == 0
