"""What changed among snapshots: sums of digests against comparing what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from bench import cases
from bench.conftest import Record
from bench.timing import best
from pytest_benchmark.fixture import BenchmarkFixture

from kumafast import SnapshotDigest, changed_snapshots, digest

Report = Callable[[str], None]

SNAPSHOTS, RESOURCES = 10_000, 500


@pytest.mark.gate
def test_changed_snapshots_against_their_dicts(report: Report, record: Record) -> None:
    """10,000 snapshots of 500 with their predecessors, 1 in 100 changed: at least 200 times comparing dicts."""
    held = cases.versions(RESOURCES)
    sample = SNAPSHOTS // 20
    before = [dict(held) for _ in range(sample)]
    after = [dict(held) for _ in range(sample)]
    for at in range(0, sample, 100):
        after[at]["outbound:127.0.0.1:10250/service-250_mesh"] = "changed"
    random = Random("digests")
    old = [random.randbytes(16) for _ in range(SNAPSHOTS)]
    new = [random.randbytes(16) if at % 100 == 0 else bytes(bytearray(value)) for at, value in enumerate(old)]
    assert changed_snapshots(old, new) == list(range(0, SNAPSHOTS, 100))
    core = best(lambda: changed_snapshots(old, new), rounds=20)
    dicts = best(lambda: [at for at in range(sample) if before[at] != after[at]]) * 20
    report(f"{core * 1e6:.0f} µs; the dicts {dicts * 1e3:.1f} ms, {dicts / core:.0f} times")
    record(changed_s=core, changed_dicts_s=dicts)
    assert dicts / core >= 200


@pytest.mark.gate
def test_a_replaced_resource_against_the_whole_snapshot(report: Report, record: Record) -> None:
    """One of 500 replaced: at least 100 times cheaper than digesting the snapshot anew."""
    held, wanted = cases.versions(RESOURCES), cases.versions(RESOURCES, generation=2)
    items = list(held.items())
    snapshot = SnapshotDigest(items)
    name = next(iter(held))
    old, new = held[name], wanted[name]

    def replace() -> None:
        for _ in range(5_000):
            snapshot.replace(name, old, new)
            snapshot.replace(name, new, old)

    each = best(replace) / 10_000
    whole = best(lambda: SnapshotDigest(items), rounds=20)
    assert snapshot.value == SnapshotDigest(items).value
    report(f"{each * 1e9:.0f} ns a replacement, {whole * 1e6:.1f} µs for all: {whole / each:.0f} times")
    record(replace_s=each, whole_s=whole)
    assert whole / each >= 100


@pytest.mark.informational
def test_replace(benchmark: BenchmarkFixture) -> None:
    snapshot = SnapshotDigest(cases.versions(RESOURCES).items())
    benchmark(snapshot.replace, "outbound:127.0.0.1:10250/service-250_mesh", "0" * 32, "1" * 32)


@pytest.mark.informational
@pytest.mark.parametrize("size", [100, 2_000, 60_000])
def test_digest(benchmark: BenchmarkFixture, size: int) -> None:
    assert len(benchmark(digest, bytes(size))) == 16
