"""What a change costs by the size of the mesh: processor time of each kind, a cold start, memory of a proxy.

In: sizes. Out: lines as they are measured, and figures as JSON by size. Never: a threshold, or a plot: `bench.drawing`.

    python -m bench.cost_by_size --sizes 1000 10000 50000 --output FILE.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.flags import mesh_size
from bench.mesh_cost import started
from bench.regular_mesh import Cost, RegularMesh, dataplane, for_all, for_cell, for_inbounds

from kumafast import garbage
from kumafast.resources import Resource
from kumafast.store import Change

SIZES = (1_000, 10_000, 50_000)
NUMBER = 7
"""The dataplane that changes; it reaches other services than its own."""

KINDS = {
    "endpoint": "an endpoint",
    "address": "an address",
    "tag": "a tag",
    "service": "a service's instance that becomes another's",
    "protocol": "a protocol",
    "outbounds": "outbounds",
    "policy_1_percent": "a policy for 1 %",
    "policy_all": "a policy for all",
    "policy_inbounds": "a policy for all inbounds",
}


def measure(size: int) -> dict[str, Any]:
    """Figures of one size; `changes` has (median, least, most) until the last snapshot, and with in-memory streams."""
    mesh = started(size)
    found: dict[str, Any] = {
        "load_cpu_s": mesh.load_s,
        "snapshots_cpu_s": mesh.snapshots_s,
        "peak_bytes": mesh.peak_bytes,
        "proxy_bytes": mesh.bytes_per_proxy,
    }
    _say(
        f"{size:>6}: loaded {mesh.load_s:.2f} s, snapshots {mesh.snapshots_s:.2f} s, "
        f"peak {mesh.peak_bytes / 1e6:.0f} MB, {mesh.bytes_per_proxy:.0f} bytes a proxy before streams"
    )
    found["changes"] = {kind: _typical(mesh, rounds, change) for kind, (rounds, change) in _changes(size).items()}
    for kind, name in KINDS.items():
        published, sent = (found["changes"][kind][each][0] * 1e3 for each in ("published_cpu_s", "sent_cpu_s"))
        _say(f"        {name}: {published:.2f} ms published, {sent:.2f} ms with the streams")
    began = time.process_time()
    garbage.look_through_all()
    found["look_for_cycles_s"] = time.process_time() - began
    _say(f"        a look for dead cycles through everything: {found['look_for_cycles_s'] * 1e3:.0f} ms")
    return found


def _changes(size: int) -> dict[str, tuple[int, Callable[[int], Resource | Change]]]:
    """For each kind how many are measured, and the nth; of what comes and goes each second one goes."""
    new = dataplane(NUMBER, size, host="10.200.200.200").model_copy(update={"name": "dp-new"})
    was = dataplane(NUMBER, size)

    def to_and_fro(other: Resource) -> tuple[int, Callable[[int], Resource | Change]]:
        return 10, lambda number: was if number % 2 else other

    def tagged(key: str, value: str) -> Resource:
        return dataplane(NUMBER, size, tags={**was.inbounds[0].tags, key: value})

    return {
        "endpoint": (21, lambda number: Change(new.key, None) if number % 2 else new),
        "address": to_and_fro(dataplane(NUMBER, size, host="10.200.200.200")),
        "tag": to_and_fro(tagged("version", "v9")),
        "service": to_and_fro(tagged("kuma.io/service", "service-00020")),
        "protocol": to_and_fro(tagged("kuma.io/protocol", "tcp")),
        "outbounds": to_and_fro(dataplane(NUMBER, size, shift=1)),
        "policy_1_percent": (9, lambda number: for_cell(2 + number % 5)),
        "policy_all": (3, lambda number: for_all(2 + number % 5)),
        "policy_inbounds": (3, lambda number: for_inbounds(2 + number % 5)),
    }


def _typical(
    mesh: RegularMesh, rounds: int, change: Callable[[int], Resource | Change]
) -> dict[str, tuple[float, float, float]]:
    costs: list[Cost] = [mesh.change(change(number)) for number in range(rounds + 1)][1:]
    return {
        "published_cpu_s": _median_of([cost.reconcile_s for cost in costs]),
        "sent_cpu_s": _median_of([cost.reconcile_s + cost.stream_s for cost in costs]),
    }


def _median_of(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cost_by_size", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=mesh_size, default=list(SIZES), help="dataplanes of the meshes")
    parser.add_argument("--output", type=Path, help="the figures as JSON go here")
    arguments = parser.parse_args()
    end = garbage.begin()
    found = {size: measure(size) for size in arguments.sizes}
    end()
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
