"""What it costs to generate and encode one part of a proxy, once; everything that shares the part pays nothing."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kumafast.generation.generate import generate
from kumafast.generation.proxy import (
    AdminInterface,
    Destination,
    Endpoint,
    EndpointSet,
    Inbound,
    Outbound,
    Part,
    TransparentProxy,
)
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.resource import XdsResource

pytestmark = pytest.mark.informational

_SERVICE = (("kuma.io/service", "backend"),)
_TAGS = (("kuma.io/protocol", "http"), ("kuma.io/zone", "default"), ("version", "v1"))
_LABELS = (("kuma.io/env", "universal"), ("kuma.io/mesh", "default"), ("kuma.io/origin", "zone"))


def _inbound(protocol: str) -> Inbound:
    return Inbound(
        address="10.0.0.1",
        port=80,
        service_address="127.0.0.1",
        service_port=8080,
        service="backend",
        protocol=protocol,
        tags=_SERVICE + _TAGS,
    )


def _outbound(protocol: str) -> Outbound:
    return Outbound(
        address="127.0.0.1", port=9090, service="backend", protocol=protocol, tags=_SERVICE, cluster_name="backend"
    )


def endpoint_set(size: int) -> EndpointSet:
    """A service of `size` instances in three zones, one in ten of them a canary, as labels and tags have it."""
    return EndpointSet(
        cluster_name="backend",
        endpoints=tuple(
            Endpoint(
                address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                port=80,
                tags=(*_TAGS[:2], ("version", "v2" if number % 10 == 0 else "v1")),
                labels=_LABELS,
                zone=f"zone-{number % 3}",
            )
            for number in range(size)
        ),
    )


PARTS: dict[str, Part] = {
    "admin": AdminInterface(socket_path="/run/admin.sock", address=None, port=None, readiness_port=9902),
    "transparent": TransparentProxy(redirect_port_inbound=15006, redirect_port_outbound=15001, has_ipv6=True),
    "inbound-http": _inbound("http"),
    "inbound-tcp": _inbound("tcp"),
    "outbound-http": _outbound("http"),
    "outbound-tcp": _outbound("tcp"),
    "destination": Destination(cluster_name="backend", service="backend", protocol="http"),
    "endpoints-10": endpoint_set(10),
    "endpoints-1000": endpoint_set(1_000),
    "endpoints-10000": endpoint_set(10_000),
}


def _make(part: Part) -> list[XdsResource]:
    return [encode(message) for message in generate(part)]


@pytest.mark.parametrize("name", PARTS)
def test_generate_and_encode(benchmark: BenchmarkFixture, name: str) -> None:
    resources = benchmark(_make, PARTS[name])
    benchmark.extra_info["bytes"] = sum(len(resource.body) for resource in resources)
    assert resources == _make(PARTS[name])
