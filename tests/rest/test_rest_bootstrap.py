"""`POST /bootstrap`: what a launcher gets, what is registered, what is refused without a trace."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests import builders
from tests.rest.fakes import dataplane_document, error, everything

from kumafast.errors import StoreUnavailableError
from kumafast.identity.server_certificate import ensure_server_certificate
from kumafast.resources import Dataplane, DataplaneInsight, Resource
from kumafast.resources.dataplane_insight import Subscription
from kumafast.resources.resource import ResourceKey
from kumafast.resources.tags import AWAITS_PROXY_LABEL
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.services import DpServices
from kumafast.store import MemoryStore, Store, StoredResource

pytestmark = pytest.mark.anyio

TITLE = "Could not make a bootstrap"
NOT_VALID = "The request is not valid"
JSON = {"Accept": "application/json"}


def _client(
    store: Store, *, certificate_pem: bytes | None = None, address: str = "127.0.0.1:5678"
) -> httpx.AsyncClient:
    app = create_dp_app(DpServices(store=store, zone="east", certificate_pem=lambda: certificate_pem))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://{address}")


@pytest.fixture
async def dp(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    async with _client(store) as opened:
        yield opened


@pytest.fixture
def certificate_pem(tmp_path: Path) -> bytes:
    return ensure_server_certificate(tmp_path, host="127.0.0.1").certificate.read_bytes()


def _request(**over: Any) -> dict[str, Any]:
    """What kuma-dp 2.14 sends, with Go's nulls for what is not set."""
    return {
        "mesh": "default",
        "name": "web-1",
        "proxyType": "dataplane",
        "dataplaneToken": "",
        "dataplaneTokenPath": "",
        "dataplaneResource": "",
        "version": {
            "kumaDp": {"version": "2.14.3", "gitTag": "v2.14.3", "gitCommit": "0c7a", "buildDate": "2026-08-21"},
            "envoy": {"version": "1.40.0", "build": "9e55/1.40.0/Clean/RELEASE/BoringSSL", "kumaDpCompatible": True},
        },
        "caCert": "",
        "dynamicMetadata": None,
        "otelEnv": None,
        "dnsPort": 15054,
        "readinessPort": 17912,
        "appProbeProxyDisabled": True,
        "operatingSystem": "linux",
        "features": ["feature-tcp-accesslog-via-named-pipe", "feature-reuse-port"],
        "resources": {"maxHeapSizeBytes": 0},
        "workdir": "/var/lib/kuma-dp",
        "metricsResources": {"certPath": "", "keyPath": ""},
        "systemCaPath": "/etc/ssl/certs/ca-certificates.crt",
        "ipv6Enabled": True,
        **over,
    }


def _bringing(document: dict[str, Any] | None = None, **over: Any) -> dict[str, Any]:
    return _request(dataplaneResource=json.dumps(dataplane_document() if document is None else document), **over)


def _bootstrap(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    loaded: dict[str, Any] = yaml.safe_load(base64.b64decode(answer.json()["bootstrap"], validate=True))
    return loaded


async def test_bootstrap_of_a_registered_dataplane(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane(admin={"port": 17902}))
    answer = await dp.post("/bootstrap", json=_request(), headers=JSON)
    bootstrap = _bootstrap(answer)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["kumaSidecarConfiguration"] == {
        "networking": {"address": "127.0.0.1"},
        "metrics": {"aggregate": []},
    }
    node = bootstrap["node"]
    assert (node["id"], node["cluster"]) == ("default.web-1", "web")
    # As in the bootstrap that a 2.14.3 gave; what is missing here belongs to features that are not there yet.
    assert node["metadata"] == {
        "dataplane.admin.address": "127.0.0.1",
        "dataplane.admin.port": "17902",
        "dataplane.admin.socketPath": "/var/lib/kuma-dp/kuma-envoy-admin.sock",
        "dataplane.dns.port": "15054",
        "dataplane.proxyType": "dataplane",
        "dataplane.readinessReporter.port": "17912",
        "features": ["feature-tcp-accesslog-via-named-pipe", "feature-reuse-port"],
        "ipv6Enabled": True,
        # Ours: the client takes endpoints one by one.
        "kumafast.delta": True,
        "metricsCertPath": "",
        "metricsKeyPath": "",
        "systemCaPath": "/etc/ssl/certs/ca-certificates.crt",
        "version": {
            "envoy": {"build": "9e55/1.40.0/Clean/RELEASE/BoringSSL", "version": "1.40.0"},
            "kumaDp": {
                "buildDate": "2026-08-21",
                "gitCommit": "0c7a",
                "gitTag": "v2.14.3",
                "version": "2.14.3",
            },
        },
        "workdir": "/var/lib/kuma-dp",
    }
    assert bootstrap["admin"]["address"]["pipe"]["path"] == "/var/lib/kuma-dp/kuma-envoy-admin.sock"
    [cluster] = bootstrap["staticResources"]["clusters"]
    [endpoint] = cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert endpoint["endpoint"]["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 5678}
    assert "transportSocket" not in cluster
    assert bootstrap["dynamicResources"]["adsConfig"]["apiType"] == "DELTA_GRPC"


async def test_bare_yaml_for_who_does_not_ask_for_json(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane())
    bare = await dp.post("/bootstrap", json=_request(), headers={"Accept": "*/*"})
    assert bare.headers["Content-Type"].startswith("text/x-yaml")
    assert yaml.safe_load(bare.text) == _bootstrap(await dp.post("/bootstrap", json=_request(), headers=JSON))


async def test_dataplane_that_comes_along_is_registered(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    assert _bootstrap(await dp.post("/bootstrap", json=_bringing(), headers=JSON))["node"]["cluster"] == "web"
    stored = await store.get(ResourceKey("Dataplane", "default", "web-1"))
    assert isinstance(stored.resource, Dataplane)
    assert stored.resource.inbounds[0].tags["kuma.io/zone"] == "east"
    assert stored.resource.labels["kuma.io/proxy-type"] == "sidecar"
    revision = await store.revision()
    assert (await dp.post("/bootstrap", json=_bringing())).status_code == 200
    assert await store.revision() == revision
    changed = dataplane_document()
    changed["networking"]["address"] = "127.0.0.7"
    await dp.post("/bootstrap", json=_bringing(changed))
    assert await store.revision() == revision + 1


async def test_dataplane_waits_for_its_envoy_unless_that_runs(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    key = ResourceKey("Dataplane", "default", "web-1")
    await dp.post("/bootstrap", json=_bringing())
    assert AWAITS_PROXY_LABEL in (await store.get(key)).resource.labels
    running = Subscription(id="s", connect_time=datetime.now(UTC))
    await store.put(DataplaneInsight(mesh="default", name="web-1", subscriptions=(running,)))
    await dp.post("/bootstrap", json=_bringing())
    assert AWAITS_PROXY_LABEL not in (await store.get(key)).resource.labels


async def test_minimal_request(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane("gate", inbound=[], gateway={"tags": {"kuma.io/service": "edge"}}))
    bootstrap = _bootstrap(await dp.post("/bootstrap", json={"name": "gate"}, headers=JSON))
    assert (bootstrap["node"]["id"], bootstrap["node"]["cluster"]) == ("default.gate", "edge")
    assert "admin" not in bootstrap


async def test_gateway_without_tags_has_an_unknown_cluster(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane("bare", inbound=[{"port": 80}]))
    bootstrap = _bootstrap(await dp.post("/bootstrap", json={"name": "bare"}, headers=JSON))
    assert bootstrap["node"]["cluster"] == "unknown"


@pytest.mark.parametrize("over", [{"xdsTransport": "sotw"}, {"features": ["feature-sotw"]}])
async def test_state_of_the_world_on_request(dp: httpx.AsyncClient, store: MemoryStore, over: dict[str, Any]) -> None:
    await store.put(builders.dataplane())
    bootstrap = _bootstrap(await dp.post("/bootstrap", json=_request(**over), headers=JSON))
    assert bootstrap["dynamicResources"]["adsConfig"]["apiType"] == "GRPC"


async def test_token_goes_with_each_stream(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane())
    bootstrap = _bootstrap(await dp.post("/bootstrap", json=_request(dataplaneToken="ey.J.x"), headers=JSON))
    [service] = bootstrap["dynamicResources"]["adsConfig"]["grpcServices"]
    assert service["initialMetadata"] == [{"key": "authorization", "value": "ey.J.x"}]


async def test_dynamic_metadata_is_kept(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane())
    request = _request(dynamicMetadata={"team": "shop"})
    bootstrap = _bootstrap(await dp.post("/bootstrap", json=request, headers=JSON))
    assert bootstrap["node"]["metadata"]["dynamicMetadata"] == {"team": "shop"}


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("127.0.0.1:7678", "127.0.0.1", 7678),
        ("control-plane.example:5678", "control-plane.example", 5678),
        ("[::1]:5678", "::1", 5678),
        ("localhost", "localhost", 80),
    ],
)
async def test_envoy_goes_where_its_launcher_went(
    dp: httpx.AsyncClient, store: MemoryStore, host: str, address: str, port: int
) -> None:
    await store.put(builders.dataplane())
    bootstrap = _bootstrap(await dp.post("/bootstrap", json=_request(), headers={**JSON, "Host": host}))
    [cluster] = bootstrap["staticResources"]["clusters"]
    [endpoint] = cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert endpoint["endpoint"]["address"]["socketAddress"] == {"address": address, "portValue": port}


@pytest.mark.parametrize("host", ["", "a b", "cp:port", "cp:0", "cp:99999", "cp:1:2", "[::1", "user@cp", "cp/x", "é"])
async def test_host_that_is_none(store: MemoryStore, host: str) -> None:
    async with _client(store) as dp:
        headers = [(b"host", host.encode()), (b"accept", b"application/json")]
        answer = await dp.post("/bootstrap", json=_bringing(), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["title"] == TITLE
    assert answer.json()["detail"].startswith("the header Host names no address: ")
    assert await store.revision() == 1


async def test_own_certificate_is_trusted(store: MemoryStore, certificate_pem: bytes) -> None:
    await store.put(builders.dataplane())
    async with _client(store, certificate_pem=certificate_pem) as dp:
        bootstrap = _bootstrap(await dp.post("/bootstrap", json=_request(), headers=JSON))
        assert _trusted(bootstrap) == certificate_pem
        assert "transportSocket" in bootstrap["staticResources"]["clusters"][0]


async def test_launcher_may_bring_the_authority(store: MemoryStore, certificate_pem: bytes, tmp_path: Path) -> None:
    await store.put(builders.dataplane())
    other = ensure_server_certificate(tmp_path / "other", host="localhost").certificate.read_text()
    async with _client(store, certificate_pem=certificate_pem) as dp:
        bootstrap = _bootstrap(await dp.post("/bootstrap", json=_request(caCert=other), headers=JSON))
        assert _trusted(bootstrap) == other.encode()


def _trusted(bootstrap: dict[str, Any]) -> bytes:
    [secret] = bootstrap["staticResources"]["secrets"]
    return base64.b64decode(secret["validationContext"]["trustedCa"]["inlineBytes"])


async def test_certificate_for_another_name(store: MemoryStore, certificate_pem: bytes) -> None:
    async with _client(store, certificate_pem=certificate_pem, address="cp.example:5678") as dp:
        answer = await dp.post("/bootstrap", json=_bringing())
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the control plane's certificate is not for cp.example; it is for ")
    assert "127.0.0.1" in answer.json()["detail"]
    assert await store.revision() == 1


async def test_authority_that_is_none(store: MemoryStore, certificate_pem: bytes) -> None:
    async with _client(store, certificate_pem=certificate_pem) as dp:
        answer = await dp.post("/bootstrap", json=_bringing(caCert="-----BEGIN NOTHING-----"))
    assert (answer.status_code, answer.json()) == (400, error(400, TITLE, "caCert holds no certificate in PEM"))
    assert await store.revision() == 1


async def test_unknown_dataplane_is_an_empty_404(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    for request in (_request(), _request(mesh="nope"), _request(name="../../x")):
        answer = await dp.post("/bootstrap", json=request, headers=JSON)
        assert (answer.status_code, answer.content) == (404, b"")


BAD_PORT = dataplane_document()
BAD_PORT["networking"]["inbound"][0]["port"] = 0
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "name",
        _bringing(dataplane_document("web-2")),
        error(422, TITLE, NOT_VALID, ("name", "name from the request has to be the same as in dataplaneResource")),
    ),
    (
        "type",
        _bringing(dataplane_document(type="Mesh")),
        error(422, TITLE, NOT_VALID, ("type", "type from the request has to be the same as in dataplaneResource")),
    ),
    (
        "port",
        _bringing(BAD_PORT),
        error(422, TITLE, NOT_VALID, ("networking.inbound[0].port", "port must be in the range [1, 65535]")),
    ),
    (
        "mesh",
        _bringing(dataplane_document(mesh="nope"), mesh="nope"),
        error(422, TITLE, "mesh of name nope is not found", ("mesh", "mesh of name nope is not found")),
    ),
    (
        "structure",
        _bringing(dataplane_document(networking="127.0.0.1")),
        error(422, TITLE, "networking: must be an object", ("networking", "must be an object")),
    ),
    (
        "no-object",
        _request(dataplaneResource="[]"),
        error(422, TITLE, "dataplaneResource must be a JSON object, not an array"),
    ),
    (
        "workdir",
        _bringing(workdir="/" + "w" * 90),
        error(
            422,
            TITLE,
            NOT_VALID,
            (
                "workdir",
                f"is too long for the admin socket /{'w' * 90}/kuma-envoy-admin.sock, whose path may have 107 bytes",
            ),
        ),
    ),
    ("no-name", _bringing(name=None), error(422, TITLE, NOT_VALID, ("name", "Field required"))),
    (
        "dns-port",
        _bringing(dnsPort=65536),
        error(422, TITLE, NOT_VALID, ("dnsPort", "Input should be less than or equal to 65535")),
    ),
    (
        "kind",
        _bringing(proxyType="ingress"),
        error(422, TITLE, NOT_VALID, ("proxyType", "Input should be 'dataplane' or ''")),
    ),
    (
        "transport",
        _bringing(xdsTransport="rest"),
        error(422, TITLE, NOT_VALID, ("xdsTransport", "Input should be 'delta' or 'sotw'")),
    ),
    (
        "token",
        _bringing(dataplaneToken="a\nb"),
        error(422, TITLE, NOT_VALID, ("dataplaneToken", r"String should match pattern '^[\x21-\x7e]*$'")),
    ),
    (
        "version",
        _bringing(version={"envoy": {"version": 1.4}}),
        error(422, TITLE, NOT_VALID, ("version.envoy.version", "Input should be a valid string")),
    ),
    (
        "features",
        _bringing(features=["a", 7]),
        error(422, TITLE, NOT_VALID, ("features[1]", "Input should be a valid string")),
    ),
    (
        "metadata",
        _bringing(dynamicMetadata={"a": {"b": 1}}),
        error(422, TITLE, NOT_VALID, ("dynamicMetadata.a", "Input should be a valid string")),
    ),
]


@pytest.mark.parametrize(("case", "request_", "expected"), REFUSED, ids=[case for case, _, _ in REFUSED])
async def test_refused_without_a_trace(
    dp: httpx.AsyncClient, store: MemoryStore, case: str, request_: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = await everything(store)
    answer = await dp.post("/bootstrap", json=request_, headers=JSON)
    assert (answer.status_code, answer.json()) == (422, expected)
    assert await everything(store) == before


async def test_requests_that_are_none(dp: httpx.AsyncClient) -> None:
    for content in (b"", b"{", b"[]", b"name: web-1", b"\xff"):
        answer = await dp.post("/bootstrap", content=content)
        assert (answer.status_code, answer.json()["title"]) == (400, "Bad Request")
    assert (await dp.post("/bootstrap", content=b"{}")).status_code == 422
    assert (await dp.get("/bootstrap")).status_code == 405
    assert (await dp.get("/")).text == "404: Page Not Found"


class _Unwritable(MemoryStore):
    async def put(self, resource: Resource, *, expected_revision: int | None = None) -> StoredResource:
        raise StoreUnavailableError("the disk is full")


async def test_store_that_cannot_be_written() -> None:
    async with _client(_Unwritable()) as dp:
        answer = await dp.post("/bootstrap", json=_bringing())
    assert (answer.status_code, answer.json()["detail"]) == (503, "the disk is full")
