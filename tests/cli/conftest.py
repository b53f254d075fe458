"""What tests of the command share: a real API on a memory store, with answers about convergence that a test chooses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.cli.running import Run
from tests.pipeline import foresight
from typer.testing import CliRunner, Result

from kumafast.cli.main import app
from kumafast.identity.token_keys import TokenKeys
from kumafast.insights import ConvergenceReport, Rejection
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.rejections import Cause, Refusal
from kumafast.resources import Mesh
from kumafast.rest.access import AccessRules
from kumafast.rest.api import create_api
from kumafast.rest.http_server import HttpServer
from kumafast.rest.services import ApiServices
from kumafast.snapshot import SnapshotCache
from kumafast.store import MemoryStore


@dataclass
class Api:
    """A served API. `waits` are the revisions and seconds that were waited for."""

    loop: asyncio.AbstractEventLoop
    store: MemoryStore
    reconciler: Reconciler
    url: str = ""
    waiting: tuple[str, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    cause: Cause = field(default_factory=Cause)
    proxies: int = 0
    waits: list[tuple[int, float]] = field(default_factory=list)
    since: int | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine on the server's loop returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def trace(self, refusals: Sequence[Refusal]) -> list[Cause]:
        return [self.cause for _ in refusals]

    async def converge(self, revision: int, timeout_s: float, /, *, since: int | None = None) -> ConvergenceReport:
        self.waits.append((revision, timeout_s))
        self.since = since
        is_converged = not self.waiting and not self.rejected
        return ConvergenceReport(revision, is_converged, self.proxies, self.waiting, self.rejected, 0.0125)


@pytest.fixture
def api() -> Iterator[Api]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    store, cache = MemoryStore(), SnapshotCache()
    # It follows no commits: whoever looks at it has it read the store.
    reconciler = Reconciler(store=store, cache=cache, metrics=Metrics(), debounce_ms=0)
    served = Api(loop, store, reconciler)
    keys = TokenKeys(store)
    services = ApiServices(
        store=served.store,
        picture=reconciler.registry,
        settle=reconciler.load,
        snapshot_of=cache.get,
        shadowed=reconciler.shadowed,
        zone="default",
        instance_id="test-0001",
        cluster_id="test",
        version="0.1.0",
        await_convergence=served.converge,
        foresee=foresight(served.store),
        rejections=lambda: served.rejected,
        trace=served.trace,
        token_keys=keys,
        access=AccessRules(verify=keys.verify_user),
    )
    server = HttpServer(create_api(services))
    try:
        served.run(served.store.put(Mesh(name="default")))
        served.url = f"http://127.0.0.1:{served.run(server.start('127.0.0.1', 0))}"
        yield served
    finally:
        served.run(server.stop(1))
        served.run(served.store.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


Command = Callable[..., Result]


@pytest.fixture
def kumafast(api: Api) -> Command:
    """Runs the command against the API of the test."""

    def run(*arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, ["--api", api.url, *arguments], input=stdin, env=env)

    return run


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.stop()
