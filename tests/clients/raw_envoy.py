"""A real Envoy with a bootstrap of our own: every way in which an Envoy can speak to an xDS server."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.clients.authority import Authority
from tests.clients.xds_server import ServerProcess, wait_until

_HTTP = httpx.Client(timeout=10)
_BACK_OFF = {"base_interval": "0.05s", "max_interval": "0.2s"}


@dataclass(frozen=True, slots=True)
class Mode:
    """How an Envoy speaks: the variant, whether each request has its node, over TLS, on one stream or on many."""

    is_delta: bool
    repeats_node: bool
    is_mtls: bool
    is_aggregated: bool = True

    def __str__(self) -> str:
        words = [
            "delta" if self.is_delta else "sotw",
            "ads" if self.is_aggregated else "services",
            "node-always" if self.repeats_node else "node-once",
            "mtls" if self.is_mtls else "plain",
        ]
        return "-".join(words)

    def api_config_source(self) -> dict[str, Any]:
        """Where an Envoy finds its control plane, as JSON of a bootstrap."""
        return {
            "api_type": "DELTA_GRPC" if self.is_delta else "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": not self.repeats_node,
            "grpc_services": [
                {"envoy_grpc": {"cluster_name": "xds", "retry_policy": {"retry_back_off": _BACK_OFF}}, "timeout": "1s"}
            ],
        }

    def config_source(self) -> dict[str, Any]:
        """Where resources that others refer to come from: the aggregated stream, or a stream of their own."""
        source: dict[str, Any] = {"resource_api_version": "V3"}
        if self.is_aggregated:
            return {**source, "ads": {}}
        return {**source, "api_config_source": self.api_config_source()}


ADS_MODES = tuple(
    Mode(is_delta, repeats_node, is_mtls)
    for is_delta in (True, False)
    for repeats_node in (False, True)
    for is_mtls in (False, True)
)
SERVICES_MODES = tuple(
    Mode(is_delta, repeats_node=False, is_mtls=False, is_aggregated=False) for is_delta in (True, False)
)


def _bootstrap(mode: Mode, *, node: str, xds_port: int, authority: Authority, admin_port: int) -> dict[str, Any]:
    ads = mode.api_config_source()
    source = {"resource_api_version": "V3", "ads": {}} if mode.is_aggregated else mode.config_source()
    if mode.is_aggregated:
        ads["api_type"] = "DELTA_GRPC" if mode.is_delta else "GRPC"
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    cluster: dict[str, Any] = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http2,
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(xds_port)}}]}],
        },
    }
    if mode.is_mtls:
        pair = authority.client
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": str(pair.certificate)},
                            "private_key": {"filename": str(pair.key)},
                        }
                    ],
                    "validation_context": {"trusted_ca": {"filename": str(authority.ca)}},
                },
            },
        }
    return {
        # Metadata makes the node as large as a sidecar's, so that its repetition can be told by the bytes sent.
        "node": {"id": node, "cluster": "tests", "metadata": {"padding": "x" * 4000}},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {
            "cds_config": source,
            "lds_config": source,
            **({"ads_config": ads} if mode.is_aggregated else {}),
        },
        "static_resources": {"clusters": [cluster]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class RawEnvoy:
    """An Envoy that was started with a mode's bootstrap, on its way to being warm."""

    def __init__(
        self,
        binary: str,
        mode: Mode,
        server: ServerProcess,
        authority: Authority,
        directory: Path,
        *,
        admin_port: int,
        xds_port: int | None = None,
    ) -> None:
        """`xds_port` is where it connects to where that is not the server itself."""
        self.mode = mode
        self.node = str(mode)
        self.admin_port = admin_port
        port = xds_port or (server.mtls_port if mode.is_mtls else server.plain_port)
        bootstrap = _bootstrap(mode, node=self.node, xds_port=port, authority=authority, admin_port=self.admin_port)
        file = directory / f"{self.node}.json"
        file.write_text(json.dumps(bootstrap), encoding="utf-8")
        self.log = directory / f"{self.node}.log"
        command = [binary, "-c", str(file), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        # A listener that was removed is gone at once, and its route with it.
        command += ["--drain-time-s", "0"]
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(command, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        """Wait until Envoy has warmed what it was sent."""

        def is_live() -> bool:
            assert self._child.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                return self.admin("/ready").strip() == "LIVE"
            return False

        wait_until(is_live, f"{self.node} is live; see {self.log}")

    def admin(self, path: str) -> str:
        """GET from Envoy's admin interface."""
        return _HTTP.get(f"http://127.0.0.1:{self.admin_port}{path}").text

    def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match a pattern."""
        stats = json.loads(self.admin(f"/stats?format=json&filter={pattern}"))["stats"]
        return {item["name"]: item["value"] for item in stats if isinstance(item.get("value"), int)}

    def stat(self, name: str) -> int:
        """One counter or gauge; zero where there is none."""
        return self.stats(f"^{name.replace('.', '[.]')}$").get(name, 0)

    def dump(self) -> dict[str, dict[str, Any]]:
        """What Envoy holds of dynamic resources, by `TYPE/NAME`: each entry of its dump with what is active in it."""
        found = {}
        for config in json.loads(self.admin("/config_dump?include_eds"))["configs"]:
            for key, kind, part in _DYNAMIC:
                for entry in config.get(key, ()):
                    state = entry.get("active_state", entry)
                    body = state.get(part)
                    if body is None:
                        found[f"{kind}/{entry.get('name')}"] = entry
                    elif "api_config_source" not in body:
                        found[f"{kind}/{body.get('name', body.get('cluster_name'))}"] = entry
        found.pop("eds/xds", None)
        return found

    def stop(self) -> None:
        """End Envoy."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()


# Of each part of a dump: where its dynamic entries are, the type, and where the message is in one.
_DYNAMIC = (
    ("dynamic_active_clusters", "cds", "cluster"),
    ("dynamic_warming_clusters", "cds-warming", "cluster"),
    ("dynamic_listeners", "lds", "listener"),
    ("dynamic_route_configs", "rds", "route_config"),
    ("dynamic_active_secrets", "sds", "secret"),
    ("dynamic_warming_secrets", "sds-warming", "secret"),
    ("dynamic_endpoint_configs", "eds", "endpoint_config"),
)
