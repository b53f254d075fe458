"""A real Envoy on raw xDS: it takes what is put, its refusal is shown in its own words, and a restart costs nothing."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf import json_format
from tests.envoy.harness import Process, free_port, wait_until

from kumafast.snapshot.resource import CLUSTER, LISTENER

pytestmark = pytest.mark.envoy


class RawXds:
    """raw-xds as a process that can be started again on the same ports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.xds_port, self.feed_port = free_port(), free_port()
        self.process = self.start()

    def start(self) -> Process:
        addresses = ["--xds", f"127.0.0.1:{self.xds_port}", "--feed", f"127.0.0.1:{self.feed_port}"]
        process = Process([sys.executable, "-m", "kumafast", "raw-xds", *addresses], self._directory / "raw-xds.log")
        assert process.child.stdout is not None
        assert process.child.stdout.readline().startswith("ready ")
        return process

    def put(self, version: str, *clusters: cluster_pb2.Cluster) -> None:
        resources = [
            {
                "type_url": CLUSTER,
                "name": cluster.name,
                "value": base64.b64encode(cluster.SerializeToString(deterministic=True)).decode(),
            }
            for cluster in clusters
        ]
        url = f"http://127.0.0.1:{self.feed_port}/v1/snapshots/raw-1"
        assert httpx.put(url, json={"version": version, "resources": resources}).status_code == 200

    def types(self) -> Any:
        nodes = httpx.get(f"http://127.0.0.1:{self.feed_port}/v1/status").json()["nodes"]
        return nodes.get("raw-1", {}).get("types", {})


def cluster(name: str, **fields: Any) -> cluster_pb2.Cluster:
    return json_format.ParseDict({"name": name, "connectTimeout": "1s", **fields}, cluster_pb2.Cluster())


def bootstrap(xds_port: int, admin_port: int, *, api_type: str) -> dict[str, Any]:
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}}
    server = {
        "name": "xds",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            http2: {
                "@type": f"type.googleapis.com/{http2}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    ads = {"ads": {}, "resource_api_version": "V3"}
    grpc = {
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }
    return {
        "node": {"id": "raw-1", "cluster": "raw"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "static_resources": {"clusters": [server]},
        "dynamic_resources": {"ads_config": grpc, "cds_config": ads, "lds_config": ads},
    }


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawXds]:
    server = RawXds(tmp_path)
    yield server
    server.process.stop()


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
def test_an_envoy_takes_refuses_and_comes_back(raw: RawXds, tmp_path: Path, envoy_binary: str, api_type: str) -> None:
    admin = free_port()
    config = json.dumps(bootstrap(raw.xds_port, admin, api_type=api_type))
    flags = ["--config-yaml", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    envoy = Process([envoy_binary, *flags], tmp_path / "envoy.log")
    try:
        raw.put("1", cluster("a"), cluster("b"))
        status = wait_until(lambda: _taken(raw, "1"), "both types are acknowledged")
        assert status[CLUSTER]["resources"] == 2
        assert status[LISTENER]["acked"] == "1"
        assert _clusters(admin) == {"xds", "a", "b"}

        # What Envoy says of a cluster that it does not take.
        raw.put("2", cluster("a"), cluster("b", type="EDS"), cluster("c"))
        refused = wait_until(lambda: raw.types()[CLUSTER]["error"] and raw.types()[CLUSTER], "the refusal is shown")
        assert (refused["nacked"], refused["acked"], refused["answer"]) == ("2", "1", "rejected")
        assert "b" in refused["error"]
        raw.put("3", cluster("a"), cluster("c"))
        wait_until(lambda: raw.types()[CLUSTER]["acked"] == "3", "the next one is acknowledged")
        assert _clusters(admin) == {"xds", "a", "c"}

        # A restart on the same ports with the Envoy connected; something goes while the server is away.
        before = _stat(admin, "cluster_manager.cds.update_success")
        raw.process.stop()
        raw.process = raw.start()
        raw.put("4", cluster("a"))
        wait_until(lambda: _clusters(admin) == {"xds", "a"}, "the removal arrives")
        assert _stat(admin, "cluster_manager.cds.update_success") == before + 1
    finally:
        envoy.stop()


def _taken(raw: RawXds, version: str) -> Any:
    types = raw.types()
    return types if {CLUSTER, LISTENER} <= types.keys() and all(t["acked"] == version for t in types.values()) else None


def _clusters(admin: int) -> set[str]:
    text = httpx.get(f"http://127.0.0.1:{admin}/clusters").text
    return {line.partition("::")[0] for line in text.splitlines()}


def _stat(admin: int, name: str) -> int:
    return int(httpx.get(f"http://127.0.0.1:{admin}/stats?filter=^{name}$").text.rpartition(" ")[2])
