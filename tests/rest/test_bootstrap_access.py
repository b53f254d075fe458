"""The authorization matrix of `POST /bootstrap`: every kind of token, each cell; a refusal has registered nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import yaml
from tests import builders, token_cases
from tests.rest.fakes import everything
from tests.token_cases import MESH, OTHER_MESH, Cases, identifier, mesh_key, revocations, sign

from kumafast.identity.proxies import ProxyAccess
from kumafast.identity.token_keys import TokenKeys
from kumafast.resources import Dataplane, ResourceKey
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.services import DpServices
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _served(store: MemoryStore, *revoked: str) -> AsyncIterator[httpx.AsyncClient]:
    await store.put(builders.mesh(OTHER_MESH))
    for secret in (mesh_key(MESH), mesh_key(OTHER_MESH), *([revocations(*revoked)] if revoked else [])):
        await store.put(secret)
    keys = TokenKeys(store)
    await keys.load()
    present: dict[tuple[str, str], Dataplane] = {(MESH, "taken"): _dataplane("taken", "b")}
    proxies = ProxyAccess(keys, find_dataplane=lambda mesh, name: present.get((mesh, name)))
    app = create_dp_app(DpServices(store=store, zone="east", proxies=proxies))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:5678") as client:
        yield client


@pytest.fixture
async def dp(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    async with _served(store) as client:
        yield client


def _dataplane(name: str, service: str) -> Dataplane:
    return builders.dataplane(name, tags={"kuma.io/service": service})


def _document(name: str = "a", service: str = "a") -> dict[str, Any]:
    inbound = {"port": 17001, "servicePort": 17101, "tags": {"kuma.io/service": service}}
    networking = {"address": "127.0.0.1", "inbound": [inbound]}
    return {"type": "Dataplane", "mesh": MESH, "name": name, "networking": networking}


def _body(**over: Any) -> dict[str, Any]:
    return {"mesh": MESH, "name": "a", "dataplaneResource": json.dumps(_document()), **over}


@pytest.mark.parametrize("way", ["field", "header"])
async def test_the_matrix(store: MemoryStore, way: str) -> None:
    cases = Cases()
    table = cases.all()
    async with _served(store, identifier(cases.revoked)) as dp:
        before = await everything(store)
        for what, case in table.items():
            is_field = way == "field" and not case.authorization.startswith("Bearer")
            answer = await dp.post(
                "/bootstrap",
                json=_body(dataplaneToken=case.authorization if is_field else ""),
                headers={} if is_field else {"Authorization": case.authorization},
            )
            if case.why is None:
                assert answer.status_code == 200, (what, answer.text)
                bootstrap = yaml.safe_load(answer.text)
                [header] = bootstrap["dynamicResources"]["adsConfig"]["grpcServices"][0]["initialMetadata"]
                assert header == {"key": "authorization", "value": case.authorization.removeprefix("Bearer ")}
                await store.delete(ResourceKey("Dataplane", MESH, "a"))
            else:
                assert answer.status_code == (403 if case.is_mismatch else 401), (what, answer.text)
                assert case.why in answer.json()["detail"], what
                assert ("www-authenticate" in answer.headers) is not case.is_mismatch
                assert case.authorization == "" or case.authorization not in answer.text
            assert await everything(store) == before


async def test_a_stranger_does_not_learn_what_there_is(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(_dataplane("known", "b"))
    answers = [
        await dp.post("/bootstrap", json={"mesh": mesh, "name": name, "dataplaneToken": "garbage"})
        for mesh, name in ((MESH, "known"), (MESH, "unknown"), ("nowhere", "known"))
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}


async def test_a_registered_one_is_judged_by_its_own_tags(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(_dataplane("known", "b"))
    for service, status in (("b", 200), ("a", 403)):
        token = sign(Tags={"kuma.io/service": (service,)})
        body = {"mesh": MESH, "name": "known", "dataplaneToken": token}
        assert (await dp.post("/bootstrap", json=body)).status_code == status


async def test_what_it_says_it_brings_is_judged(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    before = await everything(store)
    token = sign(Tags={"kuma.io/service": ("a",)})
    # Tags that it may not have; and the place of one whose tags it may not have.
    for name, service in (("a", "b"), ("taken", "a")):
        body = _body(name=name, dataplaneToken=token, dataplaneResource=json.dumps(_document(name, service)))
        answer = await dp.post("/bootstrap", json=body)
        assert (answer.status_code, "does not allow" in answer.text) == (403, True), answer.text
    assert await everything(store) == before


async def test_a_token_of_a_mesh_without_keys(dp: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.mesh("bare"))
    token = sign(token_cases.keys("bare"), Name="a", Mesh="bare")
    answer = await dp.post("/bootstrap", json={"mesh": "bare", "name": "a", "dataplaneToken": token})
    assert answer.status_code == 401
    assert "not known here" in answer.json()["detail"]
