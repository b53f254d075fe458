"""Ours against what a real Kuma 2.14.3 sent for the same mesh: equal, but for the differences listed with a reason.

A difference that is listed must be there: the day that ours comes to be equal, its line has to go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.generation.scenarios import documents, policy_effects, tags

from kumafast.generation.bootstrap import BootstrapParameters, bootstrap, to_yaml
from kumafast.generation.generate import generate
from kumafast.generation.proxy import (
    AdminInterface,
    Destination,
    Endpoint,
    EndpointSet,
    Inbound,
    InboundTls,
    Outbound,
    OutboundTls,
    Part,
)
from kumafast.generation.tls import server_name
from kumafast.resources import Mesh, initial_resources, to_document
from kumafast.resources.target_ref_policy import TargetRefPolicy

HERE = Path(__file__).parent

# Each: the resource, what Kuma has and ours has not yet, and why.
DIFFERENCES: tuple[tuple[str, str, tuple[str | int, ...], str], ...] = ()

_BOOTSTRAP_METADATA = "describes a feature of Kuma's launcher that kumafast's has not"
BOOTSTRAP_DIFFERENCES = (
    (("staticResources", "clusters", 0), "nothing listens on the access logs' socket"),
    (("node", "metadata", "metricsCertPath"), _BOOTSTRAP_METADATA),
    (("node", "metadata", "metricsKeyPath"), _BOOTSTRAP_METADATA),
    (("node", "metadata", "otelEnvInventory"), _BOOTSTRAP_METADATA),
    (("node", "metadata", "spireAgent.socketPath"), _BOOTSTRAP_METADATA),
    (("node", "metadata", "systemCaPath"), _BOOTSTRAP_METADATA),
)

_ADMIN = AdminInterface(
    socket_path="/var/lib/kuma-dp/kuma-envoy-admin.sock", address="127.0.0.1", port=17902, readiness_port=17912
)
_ECHO_TAGS = {"kuma.io/protocol": "http", "kuma.io/zone": "default", "version": "v1"}


def _initial() -> Iterator[tuple[str, Any]]:
    """What the policies of a new mesh say of requests to services, by kind, for sidecars."""
    for policy in initial_resources(Mesh(name="default"), zone="default"):
        if isinstance(policy, TargetRefPolicy) and policy.spec.to and policy.spec.top.proxy_types != ("Gateway",):
            spec: Any = to_document(policy)["spec"]
            yield policy.type.name, spec["to"][0]["default"]


_INITIAL = dict(_initial())

REFERENCE: tuple[Part, ...] = (
    _ADMIN,
    Inbound(
        address="127.0.0.1",
        port=17001,
        service_address="127.0.0.1",
        service_port=17101,
        service="echo",
        protocol="http",
        tags=tags({**_ECHO_TAGS, "kuma.io/service": "echo"}),
        tls=InboundTls(mesh="default"),
        effects=policy_effects(
            {"TrafficPermission": {"name": "web-to-echo", "sources": [{"kuma.io/service": "web"}]}}, "inbound", "http"
        ),
    ),
    Inbound(
        address="127.0.0.1",
        port=17002,
        service_address="127.0.0.1",
        service_port=17102,
        service="web",
        protocol="tcp",
        tags=tags({"kuma.io/protocol": "tcp", "kuma.io/service": "web", "kuma.io/zone": "default"}),
        tls=InboundTls(mesh="default"),
    ),
    Outbound(
        address="127.0.0.1",
        port=17201,
        service="echo",
        protocol="http",
        tags=tags({"kuma.io/service": "echo"}),
        cluster_name="echo",
        effects=policy_effects(_INITIAL, "outbound", "http"),
    ),
    Destination(
        cluster_name="echo",
        service="echo",
        protocol="http",
        tls=OutboundTls(mesh="default", services=("echo",), sni=server_name("default", {"kuma.io/service": "echo"})),
        effects=policy_effects(_INITIAL, "destination", "http"),
    ),
    EndpointSet(
        cluster_name="echo",
        endpoints=(
            Endpoint(
                address="127.0.0.1",
                port=17001,
                tags=tags(_ECHO_TAGS),
                labels=tags(
                    {
                        "kuma.io/env": "universal",
                        "kuma.io/mesh": "default",
                        "kuma.io/origin": "zone",
                        "kuma.io/proxy-type": "sidecar",
                        "kuma.io/zone": "default",
                    }
                ),
                zone="default",
            ),
        ),
    ),
)


def _recorded(file: str) -> Any:
    return yaml.safe_load((HERE / file).read_text(encoding="utf-8"))


def _named(resource: dict[str, Any]) -> str:
    return str(resource.get("name") or resource["clusterName"])


RECORDED = {
    (kind, _named(resource)): resource
    for kind, resources in _recorded("kuma_2_14.yaml").items()
    for resource in resources
}


def _ours() -> Iterator[tuple[tuple[str, str], Any]]:
    for part in REFERENCE:
        for file, resources in documents(generate(part)).items():
            for resource in resources:
                yield (file.removesuffix(".yaml"), _named(resource)), resource


OURS = dict(_ours())


def _without(document: Any, path: tuple[str | int, ...]) -> Any:
    """The document without what stands at the path; it must be there."""
    changed = copy.deepcopy(document)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    return changed


def test_generates_exactly_the_resources_that_kuma_sent() -> None:
    assert OURS.keys() == RECORDED.keys()


@pytest.mark.parametrize("key", sorted(RECORDED), ids="/".join)
def test_is_what_kuma_sent_but_for_the_listed_differences(key: tuple[str, str]) -> None:
    expected = RECORDED[key]
    for kind, name, path, _ in DIFFERENCES:
        if (kind, name) == key:
            expected = _without(expected, path)
    assert OURS[key] == expected


def test_every_listed_difference_belongs_to_a_recorded_resource() -> None:
    assert {(kind, name) for kind, name, _, _ in DIFFERENCES} <= RECORDED.keys()


def test_bootstrap_is_what_kuma_gave_but_for_the_listed_differences() -> None:
    expected = _recorded("kuma_2_14_bootstrap.yaml")
    metadata = expected["node"]["metadata"]
    for path, _ in BOOTSTRAP_DIFFERENCES:
        expected = _without(expected, path)
    ours = bootstrap(
        BootstrapParameters(
            mesh="default",
            name="web-1",
            node_cluster="web",
            control_plane_host="127.0.0.1",
            control_plane_port=7678,
            ca_pem=b"CA",
            uses_delta=False,
            admin=_ADMIN,
            dns_port=15054,
            workdir="/var/lib/kuma-dp",
            features=tuple(metadata["features"]),
            versions=metadata["version"],
        )
    )
    assert yaml.safe_load(to_yaml(ours)) == expected
