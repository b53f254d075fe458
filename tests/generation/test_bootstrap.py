"""The bootstrap's choices: TLS or not, names or addresses, delta or not, socket or port."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from kumafast.generation.bootstrap import BootstrapParameters, bootstrap, to_yaml
from kumafast.generation.proxy import AdminInterface

_NOTHING = AdminInterface(socket_path=None, address=None, port=None, readiness_port=None)
_BASE = BootstrapParameters(
    mesh="default",
    name="web-1",
    node_cluster="web",
    control_plane_host="127.0.0.1",
    control_plane_port=5678,
    admin=_NOTHING,
)


def _document(**over: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(to_yaml(bootstrap(replace(_BASE, **over))))
    return document


def _ads_cluster(**over: Any) -> dict[str, Any]:
    (cluster,) = _document(**over)["staticResources"]["clusters"]
    assert cluster["name"] == "ads_cluster"
    return dict(cluster)


def test_the_node_is_named_after_mesh_and_dataplane() -> None:
    node = _document(mesh="east", name="api-7", node_cluster="api")["node"]
    assert (node["id"], node["cluster"]) == ("east.api-7", "api")


@pytest.mark.parametrize(("uses_delta", "api_type"), [(True, "DELTA_GRPC"), (False, "GRPC")])
def test_the_stream_is_delta_unless_told_otherwise(uses_delta: bool, api_type: str) -> None:
    ads = _document(uses_delta=uses_delta)["dynamicResources"]["adsConfig"]
    assert ads["apiType"] == api_type
    assert ads["setNodeOnFirstMessageOnly"] is True


def test_without_a_certificate_the_control_plane_is_spoken_to_in_plaintext() -> None:
    assert "transportSocket" not in _ads_cluster()
    assert "secrets" not in _document()["staticResources"]


def test_with_a_certificate_the_host_must_be_in_the_control_planes_own() -> None:
    document = _document(control_plane_host="cp.example", ca_pem=b"CA")
    (secret,) = document["staticResources"]["secrets"]
    names = secret["validationContext"]["matchTypedSubjectAltNames"]
    assert [(name["sanType"], name["matcher"]["exact"]) for name in names] == [
        ("DNS", "cp.example"),
        ("IP_ADDRESS", "cp.example"),
    ]
    context = document["staticResources"]["clusters"][0]["transportSocket"]["typedConfig"]
    assert context["sni"] == "cp.example"
    assert context["commonTlsContext"]["validationContextSdsSecretConfig"]["name"] == secret["name"]


@pytest.mark.parametrize("host", ["10.0.0.1", "::1"])
def test_an_address_is_used_as_it_is(host: str) -> None:
    assert _ads_cluster(control_plane_host=host)["type"] == "STATIC"


def test_a_name_is_resolved_in_both_families_of_addresses() -> None:
    cluster = _ads_cluster(control_plane_host="localhost")
    assert (cluster["type"], cluster["dnsLookupFamily"]) == ("STRICT_DNS", "ALL")


def test_a_token_goes_with_every_stream_and_is_nowhere_else() -> None:
    document = _document(token="s3cret")
    for stream in (document["dynamicResources"]["adsConfig"], document["hdsConfig"]):
        (service,) = stream["grpcServices"]
        assert service["initialMetadata"] == [{"key": "authorization", "value": "s3cret"}]
    assert to_yaml(bootstrap(replace(_BASE, token="s3cret"))).count("s3cret") == 2


def test_what_to_probe_is_asked_for_on_a_stream_that_is_never_delta() -> None:
    assert _document(uses_delta=True)["hdsConfig"]["apiType"] == "GRPC"
    assert "hdsConfig" not in _document(uses_hds=False)


def test_the_admin_socket_is_its_owners_alone() -> None:
    admin = AdminInterface(socket_path="/run/admin.sock", address=None, port=None, readiness_port=None)
    assert _document(admin=admin)["admin"]["address"] == {"pipe": {"mode": 0o600, "path": "/run/admin.sock"}}


def test_an_admin_port_without_address_is_on_loopback() -> None:
    admin = AdminInterface(socket_path=None, address=None, port=9901, readiness_port=None)
    at = _document(admin=admin)["admin"]["address"]["socketAddress"]
    assert at == {"address": "127.0.0.1", "portValue": 9901}


def test_without_admin_interface_there_is_none() -> None:
    assert "admin" not in _document()


def test_the_metadata_that_kumafast_reads_cannot_be_overwritten() -> None:
    given = {"dataplane.proxyType": "ingress", "features": ["none"], "team": "a", "nested": {"deep": [1, None, True]}}
    metadata = _document(metadata=given, features=("feature-x",))["node"]["metadata"]
    assert metadata["dataplane.proxyType"] == "dataplane"
    assert metadata["features"] == ["feature-x"]
    assert metadata["team"] == "a"
    assert metadata["nested"] == {"deep": [1, None, True]}


def test_ports_in_the_metadata_are_texts_and_absent_ones_are_left_out() -> None:
    admin = AdminInterface(socket_path=None, address="127.0.0.1", port=9901, readiness_port=None)
    metadata = _document(admin=admin, dns_port=15053)["node"]["metadata"]
    assert metadata["dataplane.admin.port"] == "9901"
    assert metadata["dataplane.dns.port"] == "15053"
    assert "dataplane.readinessReporter.port" not in metadata


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=r"\[1, 65535\]"):
        bootstrap(replace(_BASE, control_plane_port=port))
