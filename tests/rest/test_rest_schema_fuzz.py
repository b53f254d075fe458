"""Requests made from the API's own description, of those that fit it and those that do not: no 500, no traceback.

`KUMAFAST_FUZZ_EXAMPLES` says how many of each operation and kind; in CI it is a few.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import httpx
import jwt
import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from starlette.types import ASGIApp
from tests import builders, token_cases
from tests.rest.fakes import Convergence, everything, services

from kumafast.identity.proxies import ProxyAccess
from kumafast.identity.token_keys import TokenKeys
from kumafast.rest.api import create_api
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.launch_request import LaunchRequest
from kumafast.rest.services import DpServices
from kumafast.store import MemoryStore

EXAMPLES = int(os.environ.get("KUMAFAST_FUZZ_EXAMPLES", "8"))
BASE = "http://127.0.0.1:5681"
ANSWERS = {200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422}
LAUNCH: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "The dp-server", "version": "1"},
    "paths": {
        "/bootstrap": {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/LaunchRequest"}}},
                },
                "responses": {"200": {"description": "A bootstrap"}},
            }
        }
    },
    "components": {"schemas": {}},
}


@cache
def description() -> dict[str, Any]:
    """The API's own."""

    async def ask() -> dict[str, Any]:
        async with _client(create_api(services(MemoryStore(), Convergence()))) as client:
            document: dict[str, Any] = orjson.loads((await client.get("/openapi.json")).content)
            return document

    return asyncio.run(ask())


def _launches() -> dict[str, Any]:
    schema = LaunchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {**LAUNCH, "components": {"schemas": {**definitions, "LaunchRequest": schema}}}


def _client(app: ASGIApp) -> httpx.AsyncClient:
    # What the application raises is a failure of the test, and not an answer.
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=True), base_url=BASE)


async def _store() -> MemoryStore:
    store = MemoryStore()
    await store.put(builders.mesh())
    await store.put(builders.dataplane("web-1"))
    # Making a key takes 100 ms, which is not what is looked for here.
    for secret in (token_cases.mesh_key("default"), token_cases.user_key()):
        await store.put(secret)
    return store


def _operations(document: dict[str, Any]) -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(document)
    found: list[Any] = [each.ok() for each in schema.get_all_operations()]  # type: ignore[union-attr]
    return {operation.label: operation for operation in found}


async def _send(client: httpx.AsyncClient, case: Any) -> httpx.Response:
    prepared: Any = requests.Request(**case.as_transport_kwargs(base_url=BASE)).prepare()
    headers = {**prepared.headers, "host": "127.0.0.1:5681"}
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    return await client.request(str(prepared.method), str(prepared.url), headers=headers, content=body)


Judge = Callable[[httpx.Response, MemoryStore, list[Any]], Awaitable[None]]


def _fuzz(operation: Any, mode: GenerationMode, make: Callable[[MemoryStore], Awaitable[ASGIApp]]) -> None:
    """Send examples of an operation to one application; a refusal has changed nothing."""
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(_store())
    client = _client(loop.run_until_complete(make(store)))

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        async def once() -> None:
            before = await everything(store)
            answer = await _send(client, case)
            assert answer.status_code in ANSWERS, (answer.status_code, answer.text)
            assert "Traceback" not in answer.text
            if answer.status_code >= 400:
                assert await everything(store) == before

        loop.run_until_complete(once())

    try:
        check()
    finally:
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(store.close())
        loop.close()


async def _api(store: MemoryStore) -> ASGIApp:
    given_services = services(store, Convergence())
    await given_services.token_keys.load()
    return create_api(given_services)


async def _dp_server(store: MemoryStore) -> ASGIApp:
    return create_dp_app(DpServices(store=store, zone="east"))


async def _guarded_dp_server(store: MemoryStore) -> ASGIApp:
    keys = TokenKeys(store)
    await keys.load()
    proxies = ProxyAccess(keys, find_dataplane=lambda mesh, name: None)
    return create_dp_app(DpServices(store=store, zone="east", proxies=proxies))


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.value))
def test_every_operation_of_the_api(mode: GenerationMode) -> None:
    operations = _operations(description())
    assert {"POST /tokens/dataplane", "PUT /meshes/{mesh}/secrets/{name}", "PUT /globalsecrets/{name}"} <= set(
        operations
    )
    asked = 0
    for label, operation in operations.items():
        method = label.partition(" ")[0]
        if mode is GenerationMode.NEGATIVE and method in {"GET", "DELETE"}:
            # Nothing of them can be other than described.
            continue
        _fuzz(operation, mode, _api)
        asked += 1
    assert asked >= 8


@pytest.mark.parametrize("make", [_dp_server, _guarded_dp_server], ids=["open", "with tokens"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: str(mode.value))
def test_bootstraps(mode: GenerationMode, make: Callable[[MemoryStore], Awaitable[ASGIApp]]) -> None:
    [operation] = _operations(_launches()).values()
    _fuzz(operation, mode, make)


def test_what_is_described_of_tokens_is_what_is_taken() -> None:
    """A good request of the description's form is answered as it says."""
    document = description()
    for path, body in (
        ("/tokens/dataplane", {"mesh": "default", "validFor": "1h", "tags": {"a": ["b"]}, "type": "dataplane"}),
        ("/tokens/user", {"name": "anna", "validFor": "1h", "groups": ["a"]}),
    ):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]["200"]["content"]) == {"text/plain"}
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(body) <= set(schema["properties"])

        async def ask(path: str = path, body: dict[str, Any] = body, required: Any = schema["required"]) -> None:
            store = await _store()
            async with _client(await _api(store)) as client:
                answer = await client.post(path, json=body)
                assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
                assert jwt.decode(answer.text, options={"verify_signature": False})["exp"]
                for name in required:
                    refused = await client.post(path, json={key: value for key, value in body.items() if key != name})
                    assert refused.status_code == 400
                    assert [each["field"] for each in refused.json()["invalid_parameters"]] == [name]
            await store.close()

        asyncio.run(ask())
    assert document["components"]["schemas"]["Secret"]["properties"]["data"]["contentEncoding"] == "base64"
    assert document["components"]["securitySchemes"]["userToken"]["scheme"] == "bearer"
