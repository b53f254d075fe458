"""Workers that ask each other: what each knows of its own proxies becomes one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.rest.fakes import Convergence, services

from kumafast.insights import Rejection
from kumafast.rest.api import create_api
from kumafast.rest.http_server import HttpServer
from kumafast.rest.siblings import Siblings, create_private
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio


def _refusal(node: str) -> Rejection:
    return Rejection(node, "type.googleapis.com/envoy.config.cluster.v3.Cluster", "no")


@asynccontextmanager
async def _served(directory: Path, store: MemoryStore, others: list[Convergence]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one worker among others, each of which answers the others on its socket."""
    async with AsyncExitStack() as stack:
        for number, convergence in enumerate(others):
            server = HttpServer(create_private(services(store, convergence), ()))
            await server.start_at(directory / f"{number}.sock")
            stack.push_async_callback(server.stop, 0.1)
        own = replace(services(store, Convergence()), siblings=Siblings(directory / "own.sock"))
        transport = httpx.ASGITransport(app=create_api(own))
        yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681"))


async def test_a_report_is_about_the_proxies_of_all(tmp_path: Path, store: MemoryStore) -> None:
    late = Convergence(
        is_converged=False, waiting=("default.web-2", "default.web-1"), rejected=(_refusal("default.x"),)
    )
    async with _served(tmp_path, store, [Convergence(), late]) as client:
        report = (await client.get("/_convergence?revision=7&since=5&timeout=2s")).json()
    assert (report["revision"], report["is_converged"], report["proxies"]) == (7, False, 9)
    assert report["waiting"] == ["default.web-1", "default.web-2"]
    assert [each["node"] for each in report["rejected"]] == ["default.x"]
    [(revision, timeout_s)] = late.asked
    assert (revision, late.since) == (7, 5)
    assert 0 < timeout_s <= 2


async def test_refusals_are_those_of_all(tmp_path: Path, store: MemoryStore) -> None:
    others = [Convergence(rejected=(_refusal("default.a"), _refusal("other.b"))), Convergence()]
    async with _served(tmp_path, store, others) as client:
        shown = (await client.get("/meshes/default/_rejections")).json()
    assert (shown["total"], [item["node"] for item in shown["items"]]) == (1, ["default.a"])


async def test_who_has_died_is_left_out(tmp_path: Path, store: MemoryStore) -> None:
    async with _served(tmp_path, store, [Convergence()]) as client:
        dead = await asyncio.get_running_loop().create_unix_server(asyncio.Protocol, str(tmp_path / "dead.sock"))
        dead.close()
        (tmp_path / "dead.sock").touch()
        report = (await client.get("/_convergence?revision=7&timeout=2s")).json()
    assert (report["is_converged"], report["proxies"]) == (True, 6)


async def test_who_dies_over_its_answer_is_asked_no_more_and_the_others_again(
    tmp_path: Path, store: MemoryStore
) -> None:
    other = Convergence()
    async with _served(tmp_path, store, [other]) as client:
        path = tmp_path / "dying.sock"

        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            path.unlink()
            writer.close()

        dying = await asyncio.start_unix_server(die, path)
        report = (await client.get("/_convergence?revision=7&timeout=60s")).json()
        dying.close()
    assert (report["is_converged"], report["proxies"]) == (True, 6)
    assert len(other.asked) == 2


async def test_others_are_not_asked_by_those_whom_one_asks(tmp_path: Path, store: MemoryStore) -> None:
    asking = replace(services(store, Convergence()), siblings=Siblings(tmp_path / "0.sock"))
    server = HttpServer(create_private(asking, ()))
    await server.start_at(tmp_path / "0.sock")
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "0.sock"))
    async with httpx.AsyncClient(transport=transport) as client:
        report = (await client.get("http://worker/_convergence?revision=7&timeout=2s")).json()
        assert (await client.get("http://worker/meshes")).status_code == 404
    await server.stop(0.1)
    assert report["proxies"] == 3
