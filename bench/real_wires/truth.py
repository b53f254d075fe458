"""What every Envoy should hold: what a control plane computes that is started now from the same store.

In: the file of a store, what Envoys hold. Out: for each Envoy in what it differs. Never: a question to the control
plane under test, which might be wrong in the same way twice.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from bench.real_wires.simulated_envoy import TYPES
from bench.regular_mesh import METADATA

from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.store import SqliteStore, Store


class Holder(Protocol):
    """What is known of an Envoy."""

    @property
    def node_id(self) -> str:
        """Its id."""

    @property
    def held(self) -> Mapping[str, Mapping[str, str]]:
        """The version that it holds of each resource, by type and name."""

    @property
    def warming(self) -> Collection[str]:
        """Clusters whose endpoints it waits for."""


async def differences(store: Path, envoys: Iterable[Holder]) -> list[str]:
    """A line for each Envoy and type where what is held is not what should be."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy.db"
        await asyncio.to_thread(_copy, store, copy)
        opened = await SqliteStore.open(copy)
        try:
            return await differences_from(opened, envoys)
        finally:
            await opened.close()


async def differences_from(store: Store, envoys: Iterable[Holder]) -> list[str]:
    """The same of a store that is open."""
    cache = SnapshotCache()
    reconciler = Reconciler(store=store, cache=cache, metrics=Metrics(), debounce_ms=0)
    await reconciler.load()
    return [line for envoy in envoys for line in _compare(envoy, reconciler, cache)]


def _copy(store: Path, copy: Path) -> None:
    # The control plane has its file locked, so this reads the file and its log as they lie: for when nobody writes.
    for suffix in ("", "-wal"):
        part = store.with_name(store.name + suffix)
        if part.exists():
            shutil.copyfile(part, copy.with_name(copy.name + suffix))


def _compare(envoy: Holder, reconciler: Reconciler, cache: SnapshotCache) -> Iterator[str]:
    # They stay connected: with the last of those who are alike what they share would go, and be made anew for the next.
    reconciler.connect("truth", Node(envoy.node_id, metadata=METADATA))
    snapshot = cache.get(envoy.node_id)
    if snapshot is None:
        yield f"{envoy.node_id} is not known"
        return
    for type_url in TYPES:
        wanted = dict(snapshot.resource_versions(type_url))
        held = envoy.held[type_url]
        if held != wanted:
            names = sorted(name for name in {*wanted, *held} if wanted.get(name) != held.get(name))
            yield f"{envoy.node_id} {type_url.rpartition('.')[2]}: {names[:5]}"
    if envoy.warming:
        yield f"{envoy.node_id} waits for the endpoints of {sorted(envoy.warming)[:5]}"
