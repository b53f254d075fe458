"""A real Envoy reads all that is generated and finds nothing wrong with it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf.message import Message
from tests.generation.scenarios import SCENARIOS, messages

from kumafast.generation.bootstrap import BootstrapParameters, bootstrap, to_yaml
from kumafast.generation.generate import generate
from kumafast.generation.proxy import AdminInterface, Outbound
from kumafast.identity.server_certificate import ensure_server_certificate
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME, SECRET

pytestmark = pytest.mark.envoy

_NO_ADMIN = AdminInterface(socket_path=None, address=None, port=None, readiness_port=None)


_BASE = BootstrapParameters(
    mesh="default",
    name="web-1",
    node_cluster="web",
    control_plane_host="127.0.0.1",
    control_plane_port=5678,
    admin=_NO_ADMIN,
)


def _with_static(generated: Iterable[Message]) -> str:
    """A bootstrap that holds the messages itself, as YAML; load assignments as those of clusters made for them."""
    document = bootstrap(_BASE)
    static = document.static_resources
    messages = list(generated)
    routes = {each.name: each for each in messages if isinstance(each, route_pb2.RouteConfiguration)}
    for message in messages:
        type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
        if type_url == CLUSTER:
            static.clusters.append(_with_static_secrets(message))
        elif type_url == LISTENER:
            static.listeners.append(_with_static_routes(message, routes))
        elif type_url == SECRET:
            static.secrets.append(message)
        elif type_url not in (ROUTE, RUNTIME):
            assert type_url == ENDPOINT
            holder = static.clusters.add(name="holder", type=cluster_pb2.Cluster.STATIC, connect_timeout={"seconds": 1})
            holder.load_assignment.CopyFrom(message)
    return to_yaml(document)


def _with_static_routes(
    listener: listener_pb2.Listener, routes: Mapping[str, route_pb2.RouteConfiguration]
) -> listener_pb2.Listener:
    """The listener with the routes in it that it would ask for."""
    found = listener_pb2.Listener()
    found.CopyFrom(listener)
    for chain in found.filter_chains:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        if chain.filters[-1].typed_config.Unpack(manager) and manager.HasField("rds"):
            manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
            chain.filters[-1].typed_config.Pack(manager)
    return found


def _with_static_secrets(cluster: cluster_pb2.Cluster) -> cluster_pb2.Cluster:
    """The cluster with its secrets from the bootstrap, where its endpoints are.

    Envoy makes such clusters before it has ADS, and ends where one of a bootstrap asks for that.
    """
    found = cluster_pb2.Cluster()
    found.CopyFrom(cluster)
    if cluster.HasField("load_assignment"):
        for match in found.transport_socket_matches:
            context = tls_pb2.UpstreamTlsContext()
            match.transport_socket.typed_config.Unpack(context)
            for secret in context.common_tls_context.tls_certificate_sds_secret_configs:
                secret.ClearField("sds_config")
            match.transport_socket.typed_config.Pack(context)
    return found


def _validate(envoy_binary: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "bootstrap.yaml"
    file.write_text(text, encoding="utf-8")
    command = [envoy_binary, "--mode", "validate", "-c", str(file), "--disable-hot-restart", "--log-level", "error"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of a host that scenarios name, and where they are on this one."""
    made = ensure_server_certificate(tmp_path_factory.mktemp("host"), host="127.0.0.1").certificate
    return {"/etc/metrics.crt": str(made), "/etc/metrics.key": str(made.with_suffix(".key"))}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accepts_every_golden_scenario(envoy_binary: str, scenario: str, files: dict[str, str], tmp_path: Path) -> None:
    text = _with_static(messages(scenario))
    for named, there in files.items():
        text = text.replace(named, there)
    result = _validate(envoy_binary, text, tmp_path)
    assert result.returncode == 0, result.stderr


def test_refuses_what_is_wrong_so_that_its_consent_means_something(envoy_binary: str, tmp_path: Path) -> None:
    outbound = Outbound(
        address="not-an-address", port=80, service="a", protocol="http", tags=(), cluster_name="a", binds_to_port=True
    )
    result = _validate(envoy_binary, _with_static(generate(outbound)), tmp_path)
    assert result.returncode != 0
    assert "not-an-address" in result.stderr


def test_warns_of_nothing_deprecated(envoy_binary: str, tmp_path: Path) -> None:
    for scenario in ("inbound-http", "outbound-http", "transparent-dual-stack"):
        file = tmp_path / f"{scenario}.yaml"
        file.write_text(_with_static(messages(scenario)), encoding="utf-8")
        command = [envoy_binary, "--mode", "validate", "-c", str(file), "--disable-hot-restart", "--log-level", "warn"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "deprecat" not in result.stderr.lower()


@pytest.mark.parametrize("uses_delta", [True, False], ids=["delta", "sotw"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "control-plane.example"])
def test_accepts_every_form_of_the_bootstrap(
    envoy_binary: str, host: str, uses_delta: bool, authority: bytes, tmp_path: Path
) -> None:
    admin = AdminInterface(
        socket_path=str(tmp_path / "admin.sock"), address="127.0.0.1", port=9901, readiness_port=9902
    )
    parameters = replace(
        _BASE,
        control_plane_host=host,
        uses_delta=uses_delta,
        ca_pem=authority,
        token="secret",
        admin=admin,
        dns_port=15053,
    )
    result = _validate(envoy_binary, to_yaml(bootstrap(parameters)), tmp_path)
    assert result.returncode == 0, result.stderr
