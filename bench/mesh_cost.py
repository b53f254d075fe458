"""What each kind of change costs in a regular mesh, as JSON: for `bench.compare`, which has two revisions measure it.

In: the size of the mesh. Out: processor milliseconds of each kind, typical of some changes. Never: anything that an
older revision's `bench.regular_mesh` may lack.

    python -m bench.mesh_cost 1000
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.regular_mesh import RegularMesh, dataplane, fill, for_all, for_cell, for_inbounds

from kumafast import garbage
from kumafast.resources import Resource
from kumafast.store import Change


def started(size: int) -> RegularMesh:
    """A mesh that was read from a store in a file, with a stream to each proxy."""
    mesh = RegularMesh(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.db"
        asyncio.run(fill(path, size))
        mesh.start(path)
    mesh.attach_sinks()
    return mesh


def measure(size: int) -> dict[str, float]:
    """Milliseconds by what was done."""
    end = garbage.begin()
    mesh = started(size)
    new = dataplane(7, size, host="10.200.200.200").model_copy(update={"name": "dp-new"})
    kinds: dict[str, tuple[int, Callable[[int], Resource | Change]]] = {
        "an endpoint": (21, lambda number: Change(new.key, None) if number % 2 else new),
        "a policy for 1 %": (9, lambda number: for_cell(2 + number)),
        "a policy for all": (3, lambda number: for_all(2 + number)),
        "a policy for all inbounds": (3, lambda number: for_inbounds(2 + number)),
    }
    found = {"load": mesh.load_s * 1e3, "all snapshots": mesh.snapshots_s * 1e3}
    for kind, (rounds, change) in kinds.items():
        costs = [mesh.change(change(number)) for number in range(rounds + 1)][1:]
        found[kind] = statistics.median(cost.reconcile_s for cost in costs) * 1e3
        found[f"{kind}, with its streams"] = statistics.median(cost.reconcile_s + cost.stream_s for cost in costs) * 1e3
    end()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]))) + "\n")
