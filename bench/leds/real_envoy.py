"""One real Envoy that gets its only cluster from a `CollectionServer`.

In: a port. Out: which endpoints it has, what it has cost. Never: traffic.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import httpx
from bench.real_wires import process_cost
from tests.envoy.harness import free_port

from kumafast.cli import envoy


def _bootstrap(port: int, admin_port: int) -> dict[str, object]:
    xds = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }
    return {
        "node": {"id": "n1", "cluster": "c1"},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}},
                        }
                    }
                ],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [xds]},
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class RealEnvoy:
    """An Envoy process; end it with `stop`."""

    def __init__(self, directory: Path, port: int) -> None:
        self._admin_port = free_port()
        config = directory / "envoy.json"
        config.write_text(json.dumps(_bootstrap(port, self._admin_port)), encoding="utf-8")
        arguments = [str(envoy.required()), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1"]
        with (directory / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen([*arguments, "-l", "warning"], stdout=log, stderr=log)
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._admin_port}", timeout=30)

    async def stop(self) -> None:
        """End it."""
        await self._http.aclose()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 20)

    async def stat(self, name: str) -> int:
        """One of its counters or gauges; -1 before it is there."""
        try:
            text = (await self._http.get(f"/stats?filter=^{name}$")).text
        except httpx.TransportError:
            return -1
        return int(text.rpartition(": ")[2]) if ": " in text else -1

    async def addresses(self) -> set[str]:
        """The addresses of the endpoints of the service."""
        document = (await self._http.get("/clusters?format=json")).json()
        (cluster,) = [item for item in document["cluster_statuses"] if item["name"] == "backend"]
        return {host["address"]["socket_address"]["address"] for host in cluster.get("host_statuses", [])}

    async def members(self, count: int, *, timeout_s: float = 30.0) -> float:
        """Wait until it has so many endpoints; the seconds that took."""
        started = time.monotonic()
        while await self.stat("cluster.backend.membership_total") != count:
            if time.monotonic() - started > timeout_s:
                raise TimeoutError(f"not {count} endpoints but {await self.stat('cluster.backend.membership_total')}")
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    async def allocated_bytes(self) -> int:
        """What it has allocated."""
        return int((await self._http.get("/memory")).json()["allocated"])

    def cpu_seconds(self) -> float:
        """What it has cost."""
        return process_cost.cpu_seconds(self._process.pid)
