"""What a new name costs in a mesh whose transparent proxies see all names, and where they see some.

Work is counted and asserted: what is made for a name is made once, whoever many see it, and who does not see it has
nothing to do. Seconds are processor time, and told.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from bench.conftest import Record, Tell
from tests.pipeline import dataplane, service, with_default_mesh
from tests.test_reconciler_names import Named, redirected

from kumafast.store import Put

SERVICES, PROXIES = 1_000, 1_000

pytestmark = [pytest.mark.gate, pytest.mark.counted]


async def _cost_of_a_name(sees: tuple[str, ...]) -> tuple[float, float, int, float]:
    """Processor seconds until the last snapshot, generator calls, and proxies resolved, for one more service; and the
    seconds for all of them to come."""
    store = await with_default_mesh()
    await store.write([Put(dataplane(f"s-{n}", tags=service(f"service-{n}"))) for n in range(SERVICES)])
    clients = [f"client-{n}" for n in range(PROXIES)]
    await store.write([Put(redirected(each, tags=service("client"), services=sees)) for each in clients])
    async with Named(store) as pipeline:
        began = time.process_time()
        pipeline.connect(*clients)
        await pipeline.settle()
        came = time.process_time() - began
        calls, resolved = pipeline.generator_calls(), pipeline.reconciler.work.resolved
        began = time.process_time()
        await store.put(dataplane("new-1", tags=service("new")))
        await pipeline.settle()
        seconds = time.process_time() - began
        return seconds, pipeline.generator_calls() - calls, pipeline.reconciler.work.resolved - resolved, came


@pytest.mark.parametrize(
    ("sees", "calls", "resolved"),
    [((), 4, PROXIES), (("service-1", "new"), 4, PROXIES), (("service-1",), 0, 0)],
    ids=["all see it beside 1,000", "all see it beside one", "nobody sees it"],
)
def test_a_new_name_is_made_once_for_all_who_see_it(
    sees: tuple[str, ...], calls: int, resolved: int, tell: Tell, record: Record, request: pytest.FixtureRequest
) -> None:
    seconds, made, looked_at, came = asyncio.run(_cost_of_a_name(sees))
    # Its table, listener, cluster and endpoints.
    assert (made, looked_at) == (calls, resolved)
    case = request.node.callspec.id
    record(**{f"{case.replace(' ', '_')}_cpu_s": seconds})
    tell(f"a new service, {case}", f"{seconds * 1e3:.0f} ms of CPU; all to come {came:.2f} s")
