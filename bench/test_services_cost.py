"""Ten thousand MeshServices: their addresses and names outlast a restart, and one more costs itself.

Work is counted and asserted. Seconds are processor time, and told.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from bench.conftest import Tell
from tests.test_reconciler_names import Named, listeners, table
from tests.test_reconciler_service_names import redirected, ref
from tests.test_reconciler_services import instance, mesh_service

from kumafast.resources import Mesh
from kumafast.resources.hostname_generator import initial_generators
from kumafast.store import Put, Store, open_store

SERVICES = 10_000
PATIENCE_S = 120

pytestmark = [pytest.mark.gate, pytest.mark.counted(seconds=20), pytest.mark.slow, pytest.mark.timeout(600)]


async def _settle(pipeline: Named) -> None:
    while True:
        revision = await pipeline.store.revision()
        await asyncio.wait_for(pipeline.reconciler.reached(revision), PATIENCE_S)
        if not await pipeline.allocator.step():
            return


async def _fill(store: Store) -> None:
    await store.put(Mesh(name="default"))
    five = redirected("five", *(ref(f"s-{number}") for number in range(5)))
    for resource in (*initial_generators(), instance("b-1"), five, redirected("all", sees_all=True)):
        await store.put(resource)
    for start in range(0, SERVICES, 1_000):
        made = (mesh_service(f"s-{n}", dataplaneRef={"name": f"b-{n}"}) for n in range(start, start + 1_000))
        await store.write([Put(each) for each in made])


async def _started(store: Store) -> tuple[Named, dict[str, list[str]]]:
    """A control plane, and what the proxy that sees all names answers for them."""
    pipeline = Named(store)
    await pipeline.__aenter__()
    pipeline.connect("five", "all")
    await _settle(pipeline)
    return pipeline, table(pipeline.snapshot("all"))


async def _main(path: Path, tell: Tell) -> None:
    url = f"sqlite:{path}"
    store = await open_store(url)
    await _fill(store)
    pipeline, before = await _started(store)
    await pipeline.__aexit__()
    await store.close()
    named = {name for name in before if name.endswith(".svc.mesh.local")}
    assert len(named) == SERVICES
    assert len({before[name][0] for name in named}) == SERVICES
    store = await open_store(url)
    pipeline, after = await _started(store)
    assert after == before
    assert len(listeners(pipeline.snapshot("five"))) == len(table(pipeline.snapshot("five"))) == 5
    work = pipeline.reconciler.work
    counts = (work.resolved, work.generated)
    five, began = pipeline.snapshot("five"), time.process_time()
    await store.put(mesh_service("one-more", dataplaneRef={"name": "b-1"}))
    await _settle(pipeline)
    tell("one more MeshService of 10,000", f"{(time.process_time() - began) * 1e3:.0f} ms of CPU")
    assert pipeline.snapshot("five") is five
    # Who sees it is looked at when it comes and when it has its address: a cluster, its endpoints, a listener, a table.
    assert work.resolved - counts[0] <= 2
    assert work.generated - counts[1] <= 4
    await pipeline.__aexit__()
    await store.close()


def test_addresses_and_names_are_kept_and_one_more_costs_itself(tmp_path: Path, tell: Tell) -> None:
    asyncio.run(_main(tmp_path / "services.db", tell))
