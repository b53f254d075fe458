"""Whatever comes in, the server answers: never a 500, nothing stored by a refusal, and what was stored reads back."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp
from tests import builders
from tests.rest.fakes import Convergence, dataplane_document, everything, services

from kumafast.rest.api import create_api
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.services import DpServices
from kumafast.store import MemoryStore

ITEM = "/meshes/default/dataplanes/web-1"
PUT_PATHS = [ITEM, "/meshes/default", "/meshes/shop", "/meshes/default/dataplane-insights/web-1", "/dataplanes/x"]
ANSWERS = {200, 201, 204, 400, 404, 405, 409, 413, 422}

NAMES = ["", "0", "web", "default", "kuma.io/service", "é", "\0", "a" * 300]
WORDS = [*NAMES, "127.0.0.1", "::1", "http", "Ready", "10s", "*"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([-1, 0, 80, 65535, 65536])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=20)
)
FIELDS = ["name", "mesh", "type", "labels", "networking", "inbound", "port", "tags", "address", ""]
keys = st.sampled_from(FIELDS) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)

MESH: dict[str, Any] = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin", "mode": "STRICT"}]},
    "networking": {"outbound": {"passthrough": True}},
    "logging": {"backends": [{"name": "file-1", "type": "file", "conf": {"path": "/tmp/access.log"}}]},
    "tracing": {"backends": [{"name": "z", "type": "zipkin", "sampling": 50.0, "conf": {"url": "http://z:9411/"}}]},
    "constraints": {"dataplaneProxy": {"requirements": [{"tags": {"kuma.io/service": "*"}}]}},
}
DATAPLANE: dict[str, Any] = {
    **dataplane_document(labels={"team": "shop"}),
    "probes": {"port": 9000, "endpoints": [{"inboundPort": 17001, "inboundPath": "/x", "path": "/y"}]},
}
DATAPLANE["networking"]["outbound"] = [
    {"port": 17201, "tags": {"kuma.io/service": "echo"}},
    {"port": 17202, "backendRef": {"kind": "MeshService", "name": "echo", "port": 80}},
]
DATAPLANE["networking"]["transparentProxying"] = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
LAUNCH: dict[str, Any] = {
    "mesh": "default",
    "name": "web-1",
    "dataplaneResource": orjson.dumps(dataplane_document()).decode(),
    "version": {"envoy": {"version": "1.40.0", "build": "x"}, "kumaDp": {"version": "2.14.3"}},
    "dynamicMetadata": {"a": "b"},
    "dnsPort": 15054,
    "readinessPort": 9902,
    "features": ["feature-reuse-port"],
    "workdir": "/var/lib/kuma-dp",
    "metricsResources": {"certPath": "", "keyPath": ""},
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in entries for place in ((*path, key), *_places(item, (*path, key)))]


@st.composite
def mutations(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """The document with one to three of its values replaced, removed or added to."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(changed)
        if not places:
            break
        *parents, last = draw(st.sampled_from(places))
        holder: Any = changed
        for step in parents:
            holder = holder[step]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[last] = draw(values)
            case "remove":
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[draw(keys)] = draw(values)
            case "add":
                holder.append(draw(values))
    return changed


def _api(store: MemoryStore) -> ASGIApp:
    return create_api(services(store, Convergence()))


def _dp_server(store: MemoryStore) -> ASGIApp:
    return create_dp_app(DpServices(store=store, zone="east"))


def _run(
    check: Callable[[httpx.AsyncClient, MemoryStore], Awaitable[None]],
    make: Callable[[MemoryStore], ASGIApp] = _api,
) -> None:
    async def run() -> None:
        store = MemoryStore()
        await store.put(builders.mesh())
        await store.put(builders.dataplane("echo-1"))
        transport = httpx.ASGITransport(app=make(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681") as client:
            await check(client, store)
        await store.close()

    asyncio.run(run())


async def _put(client: httpx.AsyncClient, store: MemoryStore, path: str, body: bytes) -> int:
    before = await everything(store)
    answer = await client.put(path, content=body)
    assert answer.status_code in ANSWERS, answer.text
    if answer.status_code >= 400:
        assert await everything(store) == before
    if answer.status_code in (400, 405, 413):
        assert answer.json()["status"] == answer.status_code
    return answer.status_code


@settings(deadline=None)
@given(body=st.binary(max_size=200))
def test_bytes(body: bytes) -> None:
    async def check(client: httpx.AsyncClient, store: MemoryStore) -> None:
        for path in PUT_PATHS:
            assert await _put(client, store, path, body) >= 400

    _run(check)


@settings(deadline=None)
@given(document=values | st.dictionaries(keys, values))
def test_json(document: Any) -> None:
    async def check(client: httpx.AsyncClient, store: MemoryStore) -> None:
        for path in PUT_PATHS:
            await _put(client, store, path, orjson.dumps(document))

    _run(check)


async def _round_trip(client: httpx.AsyncClient, store: MemoryStore, path: str, document: dict[str, Any]) -> None:
    status = await _put(client, store, path, orjson.dumps(document))
    if status >= 400:
        return
    read = await client.get(path)
    assert read.status_code == 200
    revision = await store.revision()
    # What the server shows is what it takes: writing it back changes nothing and warns of nothing but mTLS.
    again = await client.put(path, json=read.json())
    assert again.status_code == 200, again.text
    assert all("mTLS" in warning for warning in again.json().get("warnings", []))
    assert await store.revision() == revision


@settings(deadline=None, max_examples=300)
@given(document=mutations(DATAPLANE))
def test_nearly_good_dataplanes(document: dict[str, Any]) -> None:
    _run(lambda client, store: _round_trip(client, store, ITEM, document))


@settings(deadline=None, max_examples=200)
@given(document=mutations(MESH))
def test_nearly_good_meshes(document: dict[str, Any]) -> None:
    _run(lambda client, store: _round_trip(client, store, "/meshes/default", document))


SEGMENTS = ["meshes", "default", "dataplanes", "_overview", "web-1", "dataplanes+insights", "config"]
PARAMETERS = ["size", "offset", "name", "tag", "status", "gateway", "filter[labels.a]", "filter", "revision"]
segments = st.sampled_from(SEGMENTS) | st.text(min_size=1, max_size=6)
parameters = st.tuples(st.sampled_from(PARAMETERS) | st.text(max_size=5), st.sampled_from(WORDS) | st.text(max_size=8))


@settings(deadline=None, max_examples=200)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]),
    path=st.lists(segments, max_size=5),
    query=st.lists(parameters, max_size=4),
)
def test_addresses(method: str, path: list[str], query: list[tuple[str, str]]) -> None:
    def encoded(text: str) -> str:
        return quote(text.encode("utf-8", "surrogatepass"), safe="")

    address = "/" + "/".join(map(encoded, path)) + "?" + "&".join(f"{encoded(k)}={encoded(v)}" for k, v in query)

    async def check(client: httpx.AsyncClient, _: MemoryStore) -> None:
        answer = await client.request(method, address, content=b"{}")
        assert answer.status_code in ANSWERS, answer.text

    _run(check)


@settings(deadline=None, max_examples=200)
@given(request=mutations(LAUNCH))
def test_nearly_good_launches(request: dict[str, Any]) -> None:
    async def check(client: httpx.AsyncClient, store: MemoryStore) -> None:
        before = await everything(store)
        answer = await client.post("/bootstrap", content=orjson.dumps(request), headers={"Accept": "application/json"})
        assert answer.status_code in {200, 400, 404, 422}, answer.text
        if answer.status_code != 200:
            assert await everything(store) == before

    _run(check, _dp_server)
