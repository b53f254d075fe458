"""What stands behind the API in tests, and small things to say about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.pipeline import foresight, no_cause

from kumafast.identity.token_keys import TokenKeys
from kumafast.insights import ConvergenceReport, Rejection
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.resources import catalog
from kumafast.rest.access import AccessRules
from kumafast.rest.services import ApiServices
from kumafast.snapshot import SnapshotCache
from kumafast.store import Store, StoredResource

ERROR_TYPE = "/std-errors"


@dataclass
class Convergence:
    """Answers with what a test has put here, and remembers what was asked."""

    asked: list[tuple[int, float]] = field(default_factory=list)
    since: int | None = None
    is_converged: bool = True
    waiting: tuple[str, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    failure: Exception | None = None

    async def wait(self, revision: int, timeout_s: float, *, since: int | None = None) -> ConvergenceReport:
        self.asked.append((revision, timeout_s))
        self.since = since
        if self.failure is not None:
            raise self.failure
        return ConvergenceReport(
            revision=revision,
            is_converged=self.is_converged,
            proxies=3,
            waiting=self.waiting,
            rejected=self.rejected,
            seconds=0.25,
        )


def pipeline(store: Store) -> tuple[Reconciler, SnapshotCache]:
    """A reconciler that follows no commits: whoever looks at it has it read the store."""
    cache = SnapshotCache()
    return Reconciler(store=store, cache=cache, metrics=Metrics(), debounce_ms=0), cache


def services(
    store: Store, convergence: Convergence, live: tuple[Reconciler, SnapshotCache] | None = None
) -> ApiServices:
    keys = TokenKeys(store)
    reconciler, cache = live or pipeline(store)
    return ApiServices(
        store=store,
        picture=reconciler.registry,
        settle=reconciler.load,
        snapshot_of=cache.get,
        shadowed=reconciler.shadowed,
        zone="east",
        instance_id="host-1a2b",
        cluster_id="757ff8a3-9429-4c88-8b61-73358dc7b43c",
        version="0.1.0",
        await_convergence=convergence.wait,
        foresee=foresight(store),
        rejections=lambda: convergence.rejected,
        trace=no_cause,
        token_keys=keys,
        access=AccessRules(verify=keys.verify_user),
        settings_document={"api_port": 5681, "store": "memory"},
    )


async def everything(store: Store) -> list[StoredResource]:
    """All that is stored, to compare before and after."""
    return [stored for kind in catalog.RESOURCE_TYPES for stored in (await store.list(kind.name)).items]


def error(status: int, title: str, detail: str, *violations: tuple[str, str]) -> dict[str, Any]:
    """The error document with the deprecated mirror of each field."""
    document: dict[str, Any] = {
        "type": ERROR_TYPE,
        "status": status,
        "title": title,
        "detail": detail,
        "details": detail,
    }
    if violations:
        document["invalid_parameters"] = [{"field": where, "reason": why} for where, why in violations]
        document["causes"] = [{"field": where, "message": why} for where, why in violations]
    return document


def dataplane_document(name: str = "web-1", *, mesh: str = "default", **over: Any) -> dict[str, Any]:
    """What a user writes for a good dataplane."""
    networking = {
        "address": "127.0.0.1",
        "inbound": [{"port": 17001, "servicePort": 17101, "tags": {"kuma.io/service": "web", "version": "v1"}}],
        "admin": {"port": 17901},
    }
    return {"type": "Dataplane", "mesh": mesh, "name": name, "networking": networking, **over}
