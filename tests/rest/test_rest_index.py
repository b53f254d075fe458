"""What the server says of itself: index, types, convergence, description, diagnostics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.rest.fakes import Convergence, error

from kumafast.insights import Rejection
from kumafast.metrics import XDS_TYPES_MAX, Metrics
from kumafast.resources import ResourceKey, catalog
from kumafast.rest.diagnostics import create_diagnostics
from kumafast.store import MemoryStore
from kumafast.templates import Failure

pytestmark = pytest.mark.anyio


async def test_index_satisfies_kumactl(client: httpx.AsyncClient) -> None:
    index = (await client.get("/")).json()
    assert index.pop("hostname")
    assert index == {
        "clusterId": "757ff8a3-9429-4c88-8b61-73358dc7b43c",
        "instanceId": "host-1a2b",
        "product": "Kuma",
        "version": "2.14.3",
        "basedOnKuma": "2.14.3",
        "kumafast": "0.1.0",
    }


async def test_config_and_user(client: httpx.AsyncClient) -> None:
    assert (await client.get("/config")).json() == {"api_port": 5681, "store": "memory"}
    assert (await client.get("/who-am-i")).json() == {
        "name": "mesh-system:admin",
        "groups": ["mesh-system:admin", "mesh-system:authenticated"],
    }


async def test_policies_as_kuma_shows_them(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/policies")).json()["policies"]
    by_name = {entry["name"]: entry for entry in listed}
    # Word for word from GET /policies of a 2.14.3.
    assert by_name["MeshTimeout"] == {
        "name": "MeshTimeout",
        "readOnly": False,
        "path": "meshtimeouts",
        "singularDisplayName": "Mesh Timeout",
        "pluralDisplayName": "Mesh Timeouts",
        "isExperimental": False,
        "isTargetRefBased": True,
        "isInbound": True,
        "isOutbound": True,
    }
    assert by_name["Timeout"] == {
        "name": "Timeout",
        "readOnly": False,
        "path": "timeouts",
        "singularDisplayName": "Timeout",
        "pluralDisplayName": "Timeouts",
        "isExperimental": False,
        "isTargetRefBased": False,
        "isInbound": False,
        "isOutbound": False,
    }


async def test_resource_types_as_kuma_shows_them(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/_resources")).json()["resources"]
    by_name = {entry["name"]: entry for entry in listed}
    assert list(by_name) == sorted(by_name) == [kind.name for kind in catalog.RESOURCE_TYPES]
    # Word for word from GET /_resources of a 2.14.3.
    assert by_name["Dataplane"] == {
        "includeInFederation": False,
        "name": "Dataplane",
        "path": "dataplanes",
        "pluralDisplayName": "Dataplanes",
        "readOnly": False,
        "scope": "Mesh",
        "shortName": "dp",
        "singularDisplayName": "Dataplane",
    }
    assert by_name["MeshTimeout"] == {
        "includeInFederation": True,
        "name": "MeshTimeout",
        "path": "meshtimeouts",
        "pluralDisplayName": "Mesh Timeouts",
        "policy": {
            "hasFromTargetRef": True,
            "hasRulesTargetRef": True,
            "hasToTargetRef": True,
            "isFromAsRules": True,
            "isTargetRef": True,
        },
        "readOnly": False,
        "scope": "Mesh",
        "shortName": "mt",
        "singularDisplayName": "Mesh Timeout",
    }
    assert by_name["DataplaneInsight"] == {
        "includeInFederation": False,
        "name": "DataplaneInsight",
        "path": "dataplane-insights",
        "pluralDisplayName": "Dataplane Insights",
        "readOnly": True,
        "scope": "Mesh",
        "shortName": "",
        "singularDisplayName": "Dataplane Insight",
    }
    assert by_name["Mesh"] == {
        "includeInFederation": True,
        "name": "Mesh",
        "path": "meshes",
        "pluralDisplayName": "Meshes",
        "readOnly": False,
        "scope": "Global",
        "shortName": "m",
        "singularDisplayName": "Mesh",
    }


async def test_global_insights_count(client: httpx.AsyncClient) -> None:
    await client.put("/meshes/shop", json={"type": "Mesh", "name": "shop"})
    insights = (await client.get("/global-insights")).json()
    assert insights["resources"]["Mesh"] == {"total": 2}


async def test_convergence(client: httpx.AsyncClient, convergence: Convergence) -> None:
    answer = await client.get("/_convergence?revision=12&timeout=1500ms")
    assert answer.status_code == 200
    assert answer.json() == {
        "revision": 12,
        "is_converged": True,
        "proxies": 3,
        "waiting": [],
        "missing": [],
        "rejected": [],
        "seconds": 0.25,
    }
    assert (convergence.asked, convergence.since) == ([(12, 1.5)], 12)
    await client.get("/_convergence?revision=12&since=9")
    assert convergence.since == 9
    refused = await client.get("/_convergence?revision=12&since=first")
    assert (refused.status_code, refused.json()["invalid_parameters"][0]["field"]) == (400, "since")


async def test_convergence_that_did_not_happen(client: httpx.AsyncClient, convergence: Convergence) -> None:
    convergence.is_converged = False
    convergence.waiting = ("default.web-1",)
    policy = ResourceKey("ProxyTemplate", "default", "t")
    failure = Failure("cannot be done", "type.googleapis.com/x.Cluster", "echo", (policy,))
    convergence.rejected = (
        Rejection("default.web-2", "type.googleapis.com/x.Listener", "no such filter"),
        Rejection("default.web-3", failure.type_url, failure.message, failure),
    )
    answer = await client.get("/_convergence?revision=1")
    assert answer.status_code == 200
    assert answer.json()["is_converged"] is False
    assert answer.json()["waiting"] == ["default.web-1"]
    by_envoy, by_us = answer.json()["rejected"]
    refusal = {"node": "default.web-2", "type_url": "type.googleapis.com/x.Listener", "message": "no such filter"}
    assert by_envoy == {**refusal, "is_sent": True, "resources": [], "policies": []}
    assert (by_us["node"], by_us["is_sent"], by_us["message"]) == ("default.web-3", False, "cannot be done")
    assert convergence.asked == [(1, 10.0)]


async def test_convergence_that_fails(client: httpx.AsyncClient, convergence: Convergence) -> None:
    convergence.failure = RuntimeError("stopped")
    answer = await client.get("/_convergence?revision=1")
    assert (answer.status_code, answer.json()) == (500, error(500, "Internal Server Error", "Internal Server Error"))


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(item) for item in value.values()))
    return set().union(*(_references(item) for item in value)) if isinstance(value, list) else set()


async def test_description_is_true(client: httpx.AsyncClient, store: MemoryStore) -> None:
    """Every path that is described is served, with just the described methods; every reference leads somewhere."""
    described = (await client.get("/openapi.json")).json()
    assert described["openapi"] == "3.1.0"
    schemas = described["components"]["schemas"]
    assert {f"#/components/schemas/{name}" for name in schemas} >= _references(described)
    assert schemas["Dataplane"]["properties"].keys() >= {"type", "name", "mesh", "labels", "networking"}
    assert "servicePort" in schemas["Inbound"]["properties"]
    for path, item in described["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert named == {parameter["name"] for parameter in item.get("parameters", [])}
        options = await client.options(path.replace("{mesh}", "default").replace("{name}", "default"))
        allowed = set(options.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"}
        assert allowed == {method.upper() for method in item.keys() - {"parameters"}}, path
    for kind in catalog.RESOURCE_TYPES:
        assert kind.name in schemas


async def test_diagnostics() -> None:
    is_ready = False
    metrics = Metrics()
    app = create_diagnostics(lambda: is_ready, metrics.read)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
        assert (await client.get("/ready")).status_code == 503
        is_ready = True
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/healthy")).status_code == 200
        assert (await client.get("/nope")).status_code == 404
        assert (await client.post("/ready")).status_code == 405
        metrics.connected_proxies.set(7)
        shown = await client.get("/metrics")
        assert shown.headers["Content-Type"].startswith("text/plain")
        assert "kumafast_connected_proxies 7.0" in shown.text


def _samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        sample.name + "".join(f"[{key}={value}]" for key, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels and not sample.name.endswith("_created")
    }


def test_metrics_have_the_promised_names() -> None:
    metrics = Metrics()
    metrics.reconcile_seconds.observe(0.002)
    metrics.proxy_convergence_seconds.observe(0.02)
    metrics.affected_proxies("Dataplane").observe(50)
    metrics.generator_calls("inbound").inc(2)
    cluster = metrics.xds("type.googleapis.com/envoy.config.cluster.v3.Cluster")
    cluster.pushes += 1
    cluster.bytes += 2048
    cluster.rejects += 1
    metrics.count_snapshots_with(lambda: 42)
    metrics.count_tasks_with(lambda: 7)
    samples = _samples(metrics)
    assert (
        samples.items()
        >= {
            "kumafast_connected_proxies": 0,
            "kumafast_reconcile_seconds_count": 1,
            "kumafast_proxy_convergence_seconds_count": 1,
            "kumafast_affected_proxies_sum[cause=Dataplane]": 50,
            "kumafast_generator_calls_total[generator=inbound]": 2,
            "kumafast_xds_pushes_total[type=Cluster]": 1,
            "kumafast_xds_bytes_total[type=Cluster]": 2048,
            "kumafast_xds_rejects_total[type=Cluster]": 1,
            "kumafast_snapshot_cache_entries": 42,
            "kumafast_asyncio_tasks": 7,
        }.items()
    )
    assert samples["process_open_fds"] > 0


def test_two_control_planes_do_not_add_up() -> None:
    first, second = Metrics(), Metrics()
    first.connected_proxies.inc()
    assert _samples(second)["kumafast_connected_proxies"] == 0


def test_types_of_clients_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for i in range(10 * XDS_TYPES_MAX):
        metrics.xds(f"type.googleapis.com/made.up.Type{i}").pushes += 1
    pushed = {name: value for name, value in _samples(metrics).items() if name.startswith("kumafast_xds_pushes_total")}
    assert len(pushed) == XDS_TYPES_MAX + 1
    assert pushed["kumafast_xds_pushes_total[type=other]"] == 9 * XDS_TYPES_MAX


@pytest.mark.parametrize(("path", "listing"), [("/policies", "policies"), ("/_resources", "resources")])
async def test_every_kind_is_listed_as_kuma_lists_it(client: httpx.AsyncClient, path: str, listing: str) -> None:
    reference = json.loads((Path(__file__).parent / "kuma-2.14" / f"GET_{listing}.json").read_text())[listing]
    known = {entry["name"]: entry for entry in reference}
    listed = (await client.get(path)).json()[listing]
    assert [entry["name"] for entry in listed] == sorted(entry["name"] for entry in listed)
    for entry in listed:
        assert entry == known[entry["name"]]
