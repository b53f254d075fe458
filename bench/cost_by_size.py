"""What a change costs by the size of the mesh, beside Kuma's figures: measured, printed, drawn.

In: nothing. Out: a table, and `bench/results/cost_by_size.svg`. Never: a threshold.

    python -m bench.cost_by_size | tee bench/results/cost_by_size.txt
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from bench.regular_mesh import Cost, RegularMesh, dataplane, fill, for_all, for_cell, for_inbounds

from kumafast import garbage
from kumafast.resources import Resource
from kumafast.store import Change

SIZES = (1_000, 10_000, 50_000)
RESULT = Path(__file__).parent / "results" / "cost_by_size.svg"

# Processor seconds of its whole control plane, memory store, for as many services, instances and outbounds as here:
# an endpoint with 2.14.3 (delta), a policy on 1 % with a preview of 3.0.
KUMA_ENDPOINT = {100: 0.43, 500: 1.9, 1_000: 2.5}
KUMA_POLICY = {100: 0.56, 500: 3.1, 1_000: 6.0, 2_000: 6.4}
COMPARED_AT = 1_000


def measure(size: int) -> dict[str, tuple[float, float]]:
    """Processor seconds of each kind of change: until the last snapshot, and with the in-memory streams' work."""
    mesh = RegularMesh(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.db"
        asyncio.run(fill(path, size))
        mesh.start(path)
    mesh.attach_sinks()
    new = dataplane(7, size, host="10.200.200.200").model_copy(update={"name": "dp-new"})
    _say(
        f"{size:>6}: loaded {mesh.load_s:.2f} s, snapshots {mesh.snapshots_s:.2f} s, "
        f"peak {mesh.peak_bytes / 1e6:.0f} MB, {mesh.bytes_per_proxy:.0f} bytes a proxy before streams"
    )
    found = {
        "endpoint": _typical(mesh, 21, lambda number: Change(new.key, None) if number % 2 else new),
        "policy for 1 %": _typical(mesh, 9, lambda number: for_cell(2 + number % 5)),
        "policy for all": _typical(mesh, 3, lambda number: for_all(2 + number % 5)),
        "policy for all inbounds": _typical(mesh, 3, lambda number: for_inbounds(2 + number % 5)),
    }
    for kind, (published, sent) in found.items():
        _say(f"        {kind}: {published * 1e3:.2f} ms published, {sent * 1e3:.2f} ms with the streams")
    started = time.process_time()
    garbage.look_through_all()
    _say(f"        a look for dead cycles through everything: {(time.process_time() - started) * 1e3:.0f} ms")
    return found


def _typical(mesh: RegularMesh, rounds: int, change: Callable[[int], Resource | Change]) -> tuple[float, float]:
    costs: list[Cost] = [mesh.change(change(number)) for number in range(rounds + 1)][1:]
    published = statistics.median(cost.reconcile_s for cost in costs)
    return published, statistics.median(cost.reconcile_s + cost.stream_s for cost in costs)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def draw(costs: dict[int, dict[str, tuple[float, float]]]) -> None:
    """Processor milliseconds over dataplanes, both logarithmic."""
    mpl.use("svg")
    # The same picture for the same figures.
    mpl.rcParams["svg.hashsalt"] = "kumafast"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    peer = (("Kuma 2.14.3: endpoint", KUMA_ENDPOINT, "o--"), ("Kuma: policy for 1 %", KUMA_POLICY, "s--"))
    for label, kuma, style in peer:
        axes.plot(list(kuma), [seconds * 1e3 for seconds in kuma.values()], style, color="tab:gray", label=label)
    for kind, style in (("endpoint", "o-"), ("policy for 1 %", "s-"), ("policy for all", "^-")):
        axes.plot(list(costs), [cost[kind][1] * 1e3 for cost in costs.values()], style, label=f"kumafast: {kind}")
    axes.set(xscale="log", yscale="log", xlabel="dataplanes, all connected", ylabel="processor time of a change, ms")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(RESULT, metadata={"Date": None})


def main() -> None:
    """Measure at every size and draw."""
    end = garbage.begin()
    costs = {size: measure(size) for size in SIZES}
    end()
    for kind, kuma in (("endpoint", KUMA_ENDPOINT), ("policy for 1 %", KUMA_POLICY)):
        ours = costs[COMPARED_AT][kind][1]
        _say(f"{kind} at {COMPARED_AT}: Kuma {kuma[COMPARED_AT]:.1f} s, {kuma[COMPARED_AT] / ours:,.0f} times")
    draw(costs)


if __name__ == "__main__":
    main()
