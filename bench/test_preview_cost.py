"""What a policy would do, asked of 10,000 dataplanes with 1,000 policies: exactly for those that it concerns, at their
cost.

Work is counted and asserted, against a mesh of a tenth of the size; seconds are processor time, reported, and bounded
several times above what they are.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from bench.conftest import Record, Tell
from bench.mixed_policies import COME_TO_NOTHING, POLICIES, concerned, mixed_policies, one_more, selected
from bench.regular_mesh import METADATA, RegularMesh, cell, dataplane, fill, for_all, name, timeouts
from tests.oracles.policies_naive import selects, to_conf
from tests.rest.fakes import Convergence, services
from tests.simulation.forks import state_of

from kumafast.preview import Preview, Work, foresee
from kumafast.resources import Dataplane, Resource, to_document
from kumafast.resources.target_ref_policy import TargetRefPolicy
from kumafast.rest.api import create_api
from kumafast.snapshot.node import Node
from kumafast.store import Change, MemoryStore, Put, SqliteStore, StoredResource

SIZE = 10_000
GENERATED_MAX = 4
"""Parts of a proxy that are made to tell what is another for it: its listeners and clusters have the rest in common."""
DIFF_S_MAX = 0.9
"""Three times what a diff may take on a machine that does nothing else."""

pytestmark = [pytest.mark.counted(seconds=30), pytest.mark.slow, pytest.mark.timeout(300)]


class Asked:
    """A mesh without a network, of which nobody or everybody is connected, and what was asked of it."""

    def __init__(self, size: int, folder: Path) -> None:
        self.mesh = RegularMesh(size)
        self.written = mixed_policies()
        path = folder / f"{size}.db"
        asyncio.run(self._fill(path, size))
        asyncio.run(self.mesh.load(path))

    async def _fill(self, path: Path, size: int) -> None:
        await fill(path, size)
        store = await SqliteStore.open(path)
        await store.write([Put(policy) for policy in self.written])
        await store.close()

    def connect(self) -> None:
        for number in range(self.mesh.size):
            self.mesh.reconciler.connect(name(number), Node(f"default.{name(number)}", metadata=METADATA))

    def ask(self, policy: Resource) -> tuple[Preview, float]:
        """What a policy would do, and the processor seconds that it took to say so."""
        stored = self.mesh._stored
        assert stored is not None
        change = Change(policy.key, StoredResource(policy, 9, stored.creation_time, stored.creation_time))
        reconciler = self.mesh.reconciler
        started = time.process_time()
        preview = asyncio.run(foresee(reconciler.fork, reconciler.node, [change]))
        return preview, time.process_time() - started


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Asked]:
    folder = tmp_path_factory.mktemp("previews")
    return {size: Asked(size, folder) for size in (SIZE // 10, SIZE)}


def first_request(seconds: int, *, of_cell: str, called: str) -> Resource:
    """How long requests of 1 % of the dataplanes may take."""
    tags: dict[str, object] = {"kind": "MeshSubset", "tags": {"cell": of_cell}}
    return timeouts(called, tags, {"http": {"requestTimeout": f"{seconds}s"}})


def expected(policy: Resource, written: Iterable[Resource], size: int) -> list[str]:
    """Those for which what all policies come to is another, by the plain loops of the oracle."""
    added = cast(TargetRefPolicy, policy)
    held = [each for each in written if each.type.name == "MeshTimeout" and each.key != policy.key]
    found = []
    for number in range(size):
        proxy = dataplane(number, size)
        if not selects(added, proxy)[0]:
            continue
        before = [each for each in cast(list[TargetRefPolicy], held) if selects(each, proxy)[0]]
        replaced = [cast(TargetRefPolicy, each) for each in written if each.key == policy.key]
        was = [*before, *(each for each in replaced if selects(each, proxy)[0])]
        if any(_conf(was, proxy, port) != _conf([*before, added], proxy, port) for port in range(5)):
            found.append(proxy.name)
    return sorted(found)


def _conf(policies: list[TargetRefPolicy], proxy: Dataplane, port: int) -> object:
    rule = to_conf(policies, proxy.outbounds[port].service)
    return None if rule is None else json.dumps(rule[0], sort_keys=True)


@pytest.mark.gate
@pytest.mark.parametrize(
    "policy",
    [
        first_request(99, of_cell=cell(0, SIZE), called="a-first"),
        # Of some teams it says what holds anyway, by others it is outweighed.
        first_request(35, of_cell=cell(0, SIZE), called="a-first"),
        first_request(99, of_cell=cell(0, SIZE), called="team-05-and-later"),
        first_request(99, of_cell=cell(0, SIZE), called="z-last"),
    ],
    ids=["all of them", "not those of whom it says nothing new", "not those who are more exact", "nobody"],
)
def test_those_are_named_that_the_oracle_names(meshes: dict[int, Asked], policy: Resource) -> None:
    asked = meshes[SIZE]
    preview, _ = asked.ask(policy)
    assert [each.name for each in preview.proxies] == expected(policy, asked.written, SIZE)
    assert (preview.total, preview.proxies_left_out) == (SIZE, 0)


@pytest.mark.gate
@pytest.mark.parametrize("kind", sorted(one_more()))
def test_of_every_kind_those_are_named_that_the_oracle_names_at_their_cost(
    meshes: dict[int, Asked], kind: str, tell: Tell, record: Record
) -> None:
    asked, policy = meshes[SIZE], one_more()[kind]
    assert len({each.type.name for each in asked.written}) >= 14
    assert len(asked.written) == POLICIES
    preview, seconds = asked.ask(policy)
    wanted = concerned(policy, asked.written, SIZE)
    assert [each.name for each in preview.proxies] == wanted
    assert bool(wanted) == (kind not in COME_TO_NOTHING)
    work = preview.work
    tell(f"{kind}, {len(wanted)} affected of {SIZE:,}", f"{seconds * 1000:.1f} ms CPU, {work}")
    record(**{f"kind.{kind}_cpu_s": seconds})
    assert seconds < DIFF_S_MAX
    # Nobody is looked at but those at one of its ends, and nothing is made but what they get.
    ends = selected(policy, SIZE)
    assert work.concerned <= ends
    assert work.computed <= max(work.concerned, 1)
    assert work.generated <= GENERATED_MAX * max(work.concerned, 1)


@pytest.mark.gate
def test_a_diff_costs_whom_it_concerns_and_not_the_mesh(meshes: dict[int, Asked], tell: Tell) -> None:
    work: dict[int, Work] = {}
    for size in (SIZE // 10, SIZE):
        policy = first_request(99, of_cell=cell(0, size), called="a-first")
        preview, seconds = min((meshes[size].ask(policy) for _ in range(3)), key=lambda each: each[1])
        work[size] = preview.work
        tell(f"{size:,} dataplanes, {len(preview.proxies)} affected", f"{seconds * 1000:.0f} ms CPU, {preview.work}")
        assert seconds < DIFF_S_MAX
    # Ten times as many are concerned, of a mesh of ten times the size.
    assert work[SIZE].concerned == 10 * work[SIZE // 10].concerned == SIZE // 100
    for count in ("computed", "generated", "compared"):
        assert getattr(work[SIZE], count) <= 10 * getattr(work[SIZE // 10], count)


@pytest.mark.gate
def test_those_who_are_concerned_cost_as_much_in_any_mesh(meshes: dict[int, Asked]) -> None:
    work = []
    for size in (SIZE // 10, SIZE):
        # Four of the ten instances of a service, as every third is of that version.
        whom: dict[str, object] = {"kind": "MeshServiceSubset", "name": "service-00007", "tags": {"version": "v1"}}
        preview, _ = meshes[size].ask(timeouts("a-first", whom, {"http": {"requestTimeout": "99s"}}))
        assert [each.name for each in preview.proxies] == [name(7 + 3 * size // 10 * nth) for nth in range(4)]
        work.append(preview.work)
    assert work[0] == work[1]


@pytest.mark.gate
def test_connected_or_not_is_the_same_and_what_the_pipeline_then_does(
    meshes: dict[int, Asked], tell: Tell, record: Record
) -> None:
    asked = meshes[SIZE]
    policy = first_request(35, of_cell=cell(0, SIZE), called="a-first")
    apart, _ = asked.ask(policy)
    asked.connect()
    reconciler, cache = asked.mesh.reconciler, asked.mesh.cache
    was = state_of(reconciler, cache)
    together, seconds = asked.ask(policy)
    everybody, all_s = asked.ask(for_all(8))
    assert state_of(reconciler, cache) == was
    tell("all connected", f"{seconds * 1000:.0f} ms CPU; for all {len(everybody.proxies):,}: {all_s * 1000:.0f} ms")
    record(one_percent_cpu_s=seconds, all_cpu_s=all_s)
    assert (together.proxies, together.groups) == (apart.proxies, apart.groups)
    assert together.connected == len(together.proxies)
    assert (len(everybody.proxies), everybody.proxies_left_out) == (SIZE, 0)
    before = {node_id: cache.get(node_id) for node_id in cache}
    asked.mesh.change(policy)
    moved = [node_id for node_id in cache if cache.get(node_id) is not before[node_id]]
    assert sorted(moved) == [each.node_id for each in together.proxies]


@pytest.mark.informational
def test_a_diff_over_http(meshes: dict[int, Asked], tell: Tell, record: Record) -> None:
    reconciler = meshes[SIZE].mesh.reconciler

    async def main() -> float:
        store = MemoryStore()
        await store.put(cast(Resource, reconciler._registry.mesh("default").mesh))  # type: ignore[union-attr]

        async def ask(changes: Any) -> Preview:
            return await foresee(reconciler.fork, reconciler.node, changes)

        api = create_api(replace(services(store, Convergence()), foresee=ask))
        policy = to_document(first_request(99, of_cell=cell(0, SIZE), called="a-first"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://127.0.0.1:1") as client:
            best = 9.0
            for _ in range(5):
                started = time.perf_counter()
                response = await client.post("/meshes/default/_diff", json={"resources": [policy]})
                best = min(best, time.perf_counter() - started)
                assert response.json()["proxies"]["affected"] == SIZE // 100
        return best

    seconds = asyncio.run(main())
    tell("a diff over HTTP", f"{seconds * 1000:.0f} ms")
    record(over_http_s=seconds)
