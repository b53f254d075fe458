"""Instances that ask each other: what each knows of its own proxies becomes one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import pytest
from tests.rest.fakes import Convergence, error, services
from tests.rest.test_rest_rules import WEB, put

from kumafast.insights import Rejection
from kumafast.rest.api import create_api
from kumafast.rest.siblings import Siblings, create_answerer, others_clients
from kumafast.store import MemoryStore
from kumafast.store.questions import Answerer, Replies

pytestmark = pytest.mark.anyio


def _refusal(node: str) -> Rejection:
    return Rejection(node, "type.googleapis.com/envoy.config.cluster.v3.Cluster", "no")


async def _clients(request: bytes) -> bytes:
    return b"clients of " + request


@dataclass
class Wires:
    """`Questions` without anything between: those who answer, who never does, and who goes away over its answer."""

    answerers: dict[str, Answerer]
    missing: tuple[str, ...] = ()
    leaving: int = 0
    asked: list[tuple[str, float, bool, int]] = field(default_factory=list)

    async def follow(self, _: Answerer, /) -> None:
        """Nobody asks us."""

    async def ask(self, question: str, /, *, wait_s: float = 0.0, first: bool = False, since: int = 0) -> Replies:
        self.asked.append((question, wait_s, first, since))
        bodies = await asyncio.gather(*(answer(question) for answer in self.answerers.values()))
        self.leaving -= 1
        return Replies(dict(zip(self.answerers, bodies, strict=True)), self.missing, is_complete=self.leaving < 0)


@asynccontextmanager
async def _served(
    store: MemoryStore, others: list[Convergence], missing: tuple[str, ...] = (), *, leaving: int = 0
) -> AsyncIterator[tuple[httpx.AsyncClient, Wires]]:
    """A client of one instance among others."""
    answerers = {
        f"instance-{number}": create_answerer(services(store, convergence), _clients)
        for number, convergence in enumerate(others)
    }
    wires = Wires(answerers, missing, leaving)
    own = replace(services(store, Convergence()), siblings=Siblings(wires))
    transport = httpx.ASGITransport(app=create_api(own))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681") as client:
        yield client, wires


async def test_a_report_is_about_the_proxies_of_all(store: MemoryStore) -> None:
    late = Convergence(
        is_converged=False, waiting=("default.web-2", "default.web-1"), rejected=(_refusal("default.x"),)
    )
    async with _served(store, [Convergence(), late]) as (client, wires):
        report = (await client.get("/_convergence?revision=7&since=5&timeout=2s")).json()
    assert (report["revision"], report["is_converged"], report["proxies"]) == (7, False, 9)
    assert report["waiting"] == ["default.web-1", "default.web-2"]
    assert [each["node"] for each in report["rejected"]] == ["default.x"]
    assert report["missing"] == []
    [(revision, timeout_s)] = late.asked
    assert (revision, late.since) == (7, 5)
    assert 0 < timeout_s <= 2
    [(_, wait_s, first, since)] = wires.asked
    assert (0 < wait_s <= 2, first, since) == (True, False, 7)


async def test_who_does_not_say_how_its_proxies_are_is_named(store: MemoryStore) -> None:
    async with _served(store, [Convergence()], ("host-9f",)) as (client, _):
        report = (await client.get("/_convergence?revision=7&timeout=2s")).json()
    assert (report["is_converged"], report["proxies"], report["missing"]) == (False, 6, ["host-9f"])


async def test_refusals_are_those_of_all(store: MemoryStore) -> None:
    others = [Convergence(rejected=(_refusal("default.a"), _refusal("other.b"))), Convergence()]
    async with _served(store, others, ("host-9f",)) as (client, _):
        shown = (await client.get("/meshes/default/_rejections")).json()
    assert (shown["total"], [item["node"] for item in shown["items"]]) == (1, ["default.a"])
    assert shown["missing"] == ["host-9f"]


async def test_when_somebody_dies_over_its_answer_the_others_are_asked_again(store: MemoryStore) -> None:
    other = Convergence()
    async with _served(store, [other], leaving=1) as (client, wires):
        report = (await client.get("/_convergence?revision=7&timeout=60s")).json()
    assert (report["is_converged"], report["proxies"]) == (True, 6)
    assert (len(other.asked), len(wires.asked)) == (2, 2)


async def test_a_proxy_that_may_be_where_nobody_answers_is_not_said_to_be_nowhere(
    store: MemoryStore,
) -> None:
    path = "/meshes/default/dataplanes/web-1/_config"
    async with _served(store, [Convergence()], ("host-9f",)) as (client, wires):
        await put(client, WEB)
        response = await client.get(path)
    detail = "default.web-1 may be connected to host-9f, which does not answer"
    assert response.status_code == 503
    assert response.json() == error(503, "Could not retrieve a resource", detail)
    assert [asked[0] for asked in wires.asked] == [f"{path}?"]
    async with _served(store, [Convergence()]) as (client, _):
        assert (await client.get(path)).status_code == 404


async def test_others_are_not_asked_by_those_whom_one_asks(store: MemoryStore) -> None:
    wires = Wires({})
    answer = create_answerer(replace(services(store, Convergence()), siblings=Siblings(wires)), _clients)
    assert b'"proxies":3' in await answer("/_convergence?revision=7&timeout=2s")
    assert await answer("/meshes") == b""
    assert await answer("/meshes/default/dataplanes/nobody/_config") == b""
    assert wires.asked == []


async def test_what_stands_with_clients_is_asked_for_in_bytes(store: MemoryStore) -> None:
    answerer = create_answerer(services(store, Convergence()), _clients)
    assert await others_clients(Wires({"a": answerer}, ("b",)), b"\0x") == ((b"clients of \0x",), ("b",))
