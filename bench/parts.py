"""The parts of `make bench`: what each measures, how long it takes, the program that does it and what reads its answer.

In: sizes. Out: commands to run in the root of the tree, and readers. Never: a measurement; that is the programs' own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import cost_by_size, readers
from bench.document import RESULTS, Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What may be chosen of all parts."""

    dataplanes: Sequence[int] = cost_by_size.SIZES
    connections: Sequence[int] = (1_000, 5_000, 10_000)
    rounds: int = 5
    minutes: float = 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """`minutes` are about what it takes on two idle cores; one that `is_long` runs only where it is named."""

    name: str
    about: str
    minutes: float
    command: Callable[[Path, Sizes], list[str]]
    read: Callable[[Path], Iterator[Figure]]
    is_long: bool = False
    left_out: Callable[[Path], tuple[str, ...]] = lambda folder: ()
    heeds: tuple[str, ...] = ()
    """What may be chosen of it."""

    def minutes_of(self, sizes: Sizes) -> float:
        """About what it takes: where that may be chosen, what was chosen."""
        return sizes.minutes if "minutes" in self.heeds else self.minutes


def _pytest(*files: str, clock: str = "time.process_time") -> Callable[[Path, Sizes], list[str]]:
    """Benchmarks of files, timed by a clock: by the process's own, but where something else is waited for."""
    return lambda folder, _: [
        *(sys.executable, "-m", "pytest", "-q", *(f"bench/{file}" for file in files)),
        *("--figures", str(folder / "recorded.json"), f"--benchmark-json={folder / 'timed.json'}"),
        f"--benchmark-timer={clock}",
        # Some files have nothing that is timed by pytest-benchmark.
        *("-W", "ignore:Not saving anything"),
    ]


def _wire(*parts: str) -> Callable[[Path, Sizes], list[str]]:
    return lambda folder, sizes: [
        *(sys.executable, "-m", "bench.wire", "--parts", *parts, "--rounds", str(sizes.rounds)),
        *("--sizes", *map(str, sizes.connections), "--output", str(folder)),
    ]


def _module(name: str, output: str, *arguments: str) -> Callable[[Path, Sizes], list[str]]:
    return lambda folder, _: [sys.executable, "-m", name, *arguments, output, str(folder / _file_of(name))]


def _file_of(module: str) -> str:
    return {"bench.real_wires": "envoys.json", "tests.attack.campaign": "attacks.json"}.get(
        module, f"{module.rpartition('.')[2]}.json"
    )


def _sizes(folder: Path, sizes: Sizes) -> list[str]:
    chosen = ["--sizes", *map(str, sizes.dataplanes)]
    return [sys.executable, "-m", "bench.cost_by_size", *chosen, "--output", str(folder / "sizes.json")]


def _churn(folder: Path, sizes: Sizes) -> list[str]:
    # What it draws and writes down by the second is kept.
    minutes = ["--minutes", str(sizes.minutes), "--json", str(folder / "churn.json")]
    return [sys.executable, "-m", "bench.churn", *minutes, "--folder", str(RESULTS)]


_CORE = ("test_matching.py", "test_digests.py", "test_versions.py", "test_requests.py", "test_generation.py")
_MESH = ("test_reconcile.py", "test_longest_turn.py")
_NAMES = ("test_names_cost.py", "test_issuing.py", "test_services_cost.py")
_PREVIEW = ("test_preview_cost.py", "test_explaining_cost.py")

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            "core",
            "the compiled core and its naive twins, generation, a push without servers",
            1,
            _pytest(*_CORE, "test_wire_push.py"),
            readers.of_pytest,
        ),
        Part("mesh", "changes in meshes without a network; counted work", 2, _pytest(*_MESH), readers.of_pytest),
        Part("names", "names, certificates and services that come", 1, _pytest(*_NAMES), readers.of_pytest),
        Part("preview", "what a policy would do, and why a proxy has it", 0.5, _pytest(*_PREVIEW), readers.of_pytest),
        Part(
            "ack",
            "a write to the store, and to the ACK of a real Envoy",
            0.5,
            _pytest("test_store.py", "test_propagation.py", clock="time.perf_counter"),
            readers.of_pytest,
        ),
        Part("health", "a workload that stops, real Envoys", 1, _pytest("test_health_cost.py"), readers.of_pytest),
        Part(
            "sizes",
            "a change, a start and a proxy by the size of the mesh",
            1.5,
            _sizes,
            readers.of_sizes,
            heeds=("sizes",),
        ),
        Part(
            "push",
            "the wire beside its peers: pushes, plaintext and TLS",
            2.5,
            _wire("push", "tls"),
            readers.of_wire,
            left_out=readers.left_out_of_wire,
            heeds=("connections", "rounds"),
        ),
        Part(
            "scale",
            "19,000 connections; 50,000 streams",
            1,
            _wire("many", "streams"),
            readers.of_wire,
            left_out=readers.left_out_of_wire,
            heeds=("rounds",),
        ),
        Part(
            "storm",
            "10,000 connects at once; nodes of 61 KB",
            1,
            _wire("storm", "node"),
            readers.of_wire,
            left_out=readers.left_out_of_wire,
            heeds=("rounds",),
        ),
        Part(
            "envoys",
            "2,000 simulated Envoys on sockets, changes, a stop and a crash",
            2,
            _module("bench.real_wires", "--output"),
            readers.of_envoys,
        ),
        Part(
            "leds",
            "an endpoint of a large service leaves, by EDS and one by one",
            2.5,
            _module("bench.leds", "--output"),
            readers.of_leds,
            is_long=True,
        ),
        Part(
            "attacks",
            "neighbours beside each attack, and beside all at once",
            3,
            _module("tests.attack.campaign", "--json", "--neighbours", "1000", "--seconds", "2"),
            readers.of_attacks,
            is_long=True,
        ),
        Part("churn", "clients that come and vanish", 30, _churn, readers.of_churn, is_long=True, heeds=("minutes",)),
    )
}
