"""Policies of all kinds with a targetRef on one mesh: each is seen beside all others, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.all_policies import HEADER, PATHS, RICH, Places, documents
from tests.envoy.harness import EchoService, Mesh, Sidecar, free_port, rejected, wait_until
from tests.envoy.test_guards import get
from tests.envoy.test_mesh_metrics import scrape
from tests.envoy.test_mtls import secured, speaks_plaintext, write
from tests.envoy.test_observing import Collector
from tests.envoy.test_passthrough import REFUSED, TOLD, Outward

pytestmark = pytest.mark.envoy

# Envoy writes a log when 64 KiB have come together, or after ten seconds.
_PADDING = "x" * 8192


@dataclass
class Shopping:
    """The services `web`, `echo` and `shop`, two instances of the first two, and a transparent proxy beside them."""

    mesh: Mesh
    places: Places
    collector: Collector
    outward: Outward
    services: dict[str, EchoService] = field(default_factory=dict)
    sidecars: dict[str, Sidecar] = field(default_factory=dict)
    ports: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where one sidecar leads to a service."""

    def start(self, name: str, *reached: str, **tags: str) -> None:
        """Start an instance of the service that its name begins with."""
        workload = self.services[name] = EchoService(name)
        self.mesh.ending.callback(workload.stop)
        port = self.mesh.inbound_ports[name] = free_port()
        own = {"kuma.io/service": name[:-2], "kuma.io/protocol": "http", **tags}
        inbound = [{"port": port, "servicePort": workload.port, "tags": own}]
        outbound = []
        for service in reached:
            self.ports[name, service] = free_port()
            outbound.append({"port": self.ports[name, service], "tags": {"kuma.io/service": service}})
        self.sidecars[name] = self.mesh.sidecar(name, inbound=inbound, outbound=outbound)

    def ask(self, path: str = "/", *, by: str = "web-1", of: str = "echo", **headers: str) -> httpx.Response:
        """A request of one service, through its sidecar, to another."""
        return get(self.ports[by, of], path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def dumps(self) -> dict[str, str]:
        """The clusters and listeners of each Envoy, as it has them."""
        return {name: _dump(sidecar) for name, sidecar in {**self.sidecars, "out-1": self.outward.client}.items()}


def _dump(sidecar: Sidecar) -> str:
    found: list[Any] = []
    for part in sidecar.config_dump()["configs"]:
        found += [each["cluster"] for each in part.get("dynamic_active_clusters", ())]
        assert not part.get("dynamic_warming_clusters")
        states = (each.get("active_state") for each in part.get("dynamic_listeners", ()))
        found += [state["listener"] for state in states if state is not None]
    return json.dumps(sorted(found, key=lambda each: (each["@type"], each["name"])), sort_keys=True)


@pytest.fixture(scope="module")
def shopping(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Shopping]:
    directory: Path = tmp_path_factory.mktemp("all-policies")
    collector = Collector()
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    mesh.flags = ("--concurrency", "1")
    with mesh.ending:
        mesh.ending.callback(collector.stop)
        places = Places(log=str(directory / "web.log"), collector=collector.port, metrics=free_port())
        shopping = Shopping(mesh, places, collector, Outward(mesh, "out-1"))
        shopping.start("web-1", "echo", "shop", at="a")
        shopping.start("web-2", at="b")
        shopping.start("echo-1")
        shopping.start("echo-2")
        shopping.start("shop-1", "echo", "web")
        yield shopping


def goes_by_path(shopping: Shopping) -> bool:
    return bool(shopping.ask(RICH).json()["instance"] == "shop-1")


def goes_by_version(shopping: Shopping) -> bool:
    before = shopping.services["web-2"].answered
    for _ in range(8):
        shopping.ask(by="shop-1", of="web")
    led = [
        name for name, count in shopping.sidecars["shop-1"].stats("^cluster.web-.*upstream_cx_total$").items() if count
    ]
    return len(led) == 1 and shopping.services["web-2"].answered == before


def stays_with_one(shopping: Shopping) -> bool:
    return len({shopping.ask(x_user="one").json()["instance"] for _ in range(6)}) == 1


def is_written_down(shopping: Shopping) -> bool:
    for _ in range(10):
        shopping.ask(f"/{_PADDING}")
    log = Path(shopping.places.log)
    return log.exists() and " echo" in log.read_text()


def is_traced(shopping: Shopping) -> bool:
    shopping.ask()
    return {"web", "echo"} <= {span["localEndpoint"]["serviceName"] for span in shopping.collector.spans}


def is_checked(shopping: Shopping) -> bool:
    return (
        shopping.sidecars["web-1"].stats("^cluster.echo.health_check.success$")["cluster.echo.health_check.success"] > 0
    )


def is_limited_at_once(shopping: Shopping) -> bool:
    with ThreadPoolExecutor(3) as pool:
        statuses = sorted(each.status_code for each in pool.map(lambda _: shopping.ask("/slow", of="shop"), range(3)))
    return statuses == [200, 503, 503]


def is_tried_again(shopping: Shopping) -> bool:
    shopping.services["shop-1"].failures.append(500)
    return shopping.ask(of="shop").status_code == 200


def is_plain_for_one(shopping: Shopping) -> bool:
    taken = {name: speaks_plaintext(shopping.mesh.inbound_ports[name]) for name in ("echo-1", "echo-2")}
    return taken == {"echo-1": False, "echo-2": True}


SEEN: dict[str, Callable[[Shopping], object]] = {
    "MeshTrafficPermission": lambda shopping: shopping.ask().status_code == 200,
    "MeshTLS": is_plain_for_one,
    "MeshHTTPRoute": goes_by_path,
    "MeshTCPRoute": goes_by_version,
    "MeshLoadBalancingStrategy": stays_with_one,
    "MeshPassthrough": lambda shopping: shopping.outward.get("one", "one.test")[0] == REFUSED,
    "MeshAccessLog": is_written_down,
    "MeshTrace": is_traced,
    "MeshFaultInjection": lambda shopping: shopping.ask(by="shop-1").status_code == 418,
    "MeshRateLimit": lambda shopping: shopping.ask(by="shop-1", of="web").status_code == 429,
    "MeshTimeout": lambda shopping: shopping.ask("/slow").status_code == 504,
    "MeshHealthCheck": is_checked,
    "MeshCircuitBreaker": is_limited_at_once,
    "MeshRetry": is_tried_again,
    "MeshMetric": lambda shopping: any("upstream_rq_total" in key for key in scrape(shopping.places.metrics)),
    "MeshProxyPatch": lambda shopping: shopping.ask().headers.get(HEADER) == "yes",
}


def test_each_is_seen_beside_all_others_and_leaves_nothing_behind(shopping: Shopping) -> None:
    assert SEEN.keys() == PATHS.keys()
    control_plane = shopping.mesh.control_plane
    policies = documents(shopping.places)
    urls = {kind: f"{control_plane.api}/meshes/default/{path}/of-all" for kind, path in PATHS.items()}
    with shopping.outward.told("/listenerFilters", [TOLD]):
        wait_until(lambda: shopping.outward.get("one", "one.test")[0] == 200, "everything goes out")
        write(shopping.mesh, secured("ca-1", enabled="ca-1"))
        wait_until(lambda: shopping.ask().status_code == 403, "nobody is let in")
        recorded = []
        for kind, document in policies.items():
            recorded.append((kind, shopping.dumps()))
            control_plane.settle("PUT", urls[kind], document)
            assert shopping.dumps() != recorded[-1][1], kind
        # Traffic flows, and each of them does what it does alone.
        for kind, is_seen in SEEN.items():
            wait_until(lambda is_seen=is_seen: is_seen(shopping), f"{kind} is seen")  # type: ignore[misc]
        for kind, before in reversed(recorded):
            control_plane.settle("DELETE", urls[kind])
            wait_until(lambda before=before: shopping.dumps() == before, f"{kind} has left nothing")  # type: ignore[misc]
        assert shopping.ask().status_code == 403
    for sidecar in (*shopping.sidecars.values(), shopping.outward.client):
        assert rejected(sidecar) == []
