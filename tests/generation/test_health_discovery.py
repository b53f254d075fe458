"""What Envoys are told to probe: Kuma's names, a probe's own words, its readiness, nothing twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.protobuf import json_format

from kumafast.generation.health_discovery import Probe, Timing, specifier
from kumafast.generation.proxy import AdminInterface

SOCKET = AdminInterface(socket_path="/run/admin.sock", address="127.0.0.1", port=9901, readiness_port=None)
PORT = AdminInterface(socket_path=None, address=None, port=9901, readiness_port=None)
NONE = AdminInterface(socket_path=None, address=None, port=None, readiness_port=None)
DEFAULTS = Timing()


def document(admin: AdminInterface, *probes: Probe) -> dict[str, Any]:
    made = specifier(admin, probes, timing=DEFAULTS, report_interval=timedelta(milliseconds=100))
    found: dict[str, Any] = json_format.MessageToDict(made)
    return found


def test_a_workload_and_the_envoy_itself() -> None:
    own = Timing(
        interval=timedelta(seconds=5), timeout=timedelta(seconds=3), healthy_threshold=2, unhealthy_threshold=4
    )
    made = document(SOCKET, Probe("127.0.0.1", 8080, own))
    assert made["interval"] == "0.100s"
    workload, admin = made["clusterHealthChecks"]
    assert workload == {
        "clusterName": "localhost:8080",
        "healthChecks": [
            {
                "timeout": "3s",
                "interval": "5s",
                "noTrafficInterval": "5s",
                "unhealthyThreshold": 4,
                "healthyThreshold": 2,
                "tcpHealthCheck": {},
            }
        ],
        "localityEndpoints": [
            {"endpoints": [{"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 8080}}}]}
        ],
    }
    assert admin["clusterName"] == "kuma:envoy:admin"
    assert admin["healthChecks"][0]["httpHealthCheck"] == {"path": "/ready"}
    assert admin["localityEndpoints"] == [{"endpoints": [{"address": {"pipe": {"path": "/run/admin.sock"}}}]}]


def test_without_a_socket_the_admin_interface_is_asked_at_its_port() -> None:
    [admin] = document(PORT)["clusterHealthChecks"]
    address = admin["localityEndpoints"][0]["endpoints"][0]["address"]
    assert address == {"socketAddress": {"address": "127.0.0.1", "portValue": 9901}}
    assert "clusterHealthChecks" not in document(NONE)


def test_of_probes_of_one_workload_the_first_counts_and_other_hosts_have_names_of_their_own() -> None:
    slow = Timing(interval=timedelta(minutes=1))
    probes = [Probe("127.0.0.1", 80, DEFAULTS), Probe("10.0.0.1", 80, DEFAULTS), Probe("127.0.0.1", 80, slow)]
    made = document(NONE, *probes)["clusterHealthChecks"]
    assert [check["clusterName"] for check in made] == ["localhost:80", "10.0.0.1:80"]
    assert made[0]["healthChecks"][0]["interval"] == "1s"
