"""The wire seen from its socket: what `python -m bench.wire` measures, at a size that continuous integration can bear.

The gates are counts, and ratios to a floor that takes turns with the server. `make bench-wire` has all sizes and peers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from bench.wire.measure import Figures, measure
from bench.wire.process import BenchmarkError
from bench.wire.report import write_report
from bench.wire.servers import Bench, prepare, why_no_compiler
from bench.wire.target import Case, Target

# So many that what a server takes once (about 1 MB of arenas with its first push) is less than 1 KB of each.
CONNECTIONS = 2_000
# A handshake costs both sides a millisecond.
TLS_CONNECTIONS = 500
ROUNDS = 5

# What a response has beside the resource: its type twice, names, versions, the nonce.
ENVELOPE_BYTES_MAX = 400
# Frame heads are written with their payload, and never in a segment of their own.
SEGMENTS_MAX = 1.02
# What was measured (1.4, 4.5 and 3 times; 4.1 KB of memory in plaintext, 17 KB over TLS) and up to twice as much, for a
# machine whose two cores are busy. They are to follow the figures down.
TIMES_FLOOR_MAX = {"linear": 3, "mesh": 9}
TIMES_FLOOR_TLS_MAX = 6
RESIDENT_KB_MAX = 6
RESIDENT_TLS_KB_MAX = 30


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    missing = why_no_compiler()
    if missing is not None:
        pytest.skip(missing)
    return prepare(tmp_path_factory.mktemp("wire"), with_go=False)


def _assert_counts(figures: Figures) -> None:
    """Every push arrived once and was acknowledged, or `measure` had raised: the next one waits for that."""
    assert figures.pushes is not None
    assert 2_000 < figures.pushes.bytes < 2_000 + ENVELOPE_BYTES_MAX
    assert figures.pushes.segments <= SEGMENTS_MAX


@pytest.mark.gate
@pytest.mark.parametrize("mode", ["linear", "mesh"])
def test_a_push_costs_so_many_times_the_floor(bench: Bench, report: Callable[[str], None], mode: str) -> None:
    figures = measure(bench, "push", Case(server=f"kumafast-{mode}", connections=CONNECTIONS), rounds=ROUNDS)
    _assert_counts(figures)
    assert figures.pushes is not None
    # Noise only ever adds: the best of the rounds is what the work itself takes.
    best = figures.pushes.times_floor_spread[0]
    report(
        f"{figures.pushes.cpu_us:.1f} µs a push, {figures.pushes.times_floor:.1f} times the floor, at best {best:.1f}; "
        f"{figures.resident_kb:.1f} KB a connection, {figures.resident_after_kb:.1f} after; "
        f"{figures.pushes.segments:.2f} segments"
    )
    assert best <= TIMES_FLOOR_MAX[mode]
    assert figures.resident_kb <= RESIDENT_KB_MAX
    assert figures.resident_after_kb is not None
    assert figures.resident_after_kb <= RESIDENT_KB_MAX


@pytest.mark.gate
def test_a_push_over_tls_costs_so_many_times_the_floor(bench: Bench, report: Callable[[str], None]) -> None:
    case = Case(server="kumafast-linear", connections=TLS_CONNECTIONS, is_tls=True)
    if not bench.has_tls:
        pytest.skip("the load client was built without OpenSSL")
    figures = measure(bench, "tls", case, rounds=ROUNDS)
    _assert_counts(figures)
    assert figures.pushes is not None
    best = figures.pushes.times_floor_spread[0]
    report(
        f"{figures.pushes.times_floor:.1f} times the plaintext floor, at best {best:.1f}; "
        f"{figures.resident_kb:.1f} KB a connection"
    )
    assert best <= TIMES_FLOOR_TLS_MAX
    assert figures.resident_kb <= RESIDENT_TLS_KB_MAX


@pytest.mark.gate
def test_many_streams_and_large_nodes_are_all_reached(bench: Bench) -> None:
    """Nodes of 61 KB with each acknowledgement pass the server's windows; streams of a connection are told apart."""
    case = Case(server="kumafast-mesh", connections=50, streams=10, has_large_node=True, repeats_node=True)
    with ExitStack() as stack:
        target = Target(bench, case, stack)
        target.open()
        for _ in range(ROUNDS):
            assert 2_000 < target.push().bytes < 2_000 + ENVELOPE_BYTES_MAX


@pytest.mark.gate
def test_what_does_not_arrive_is_an_error(bench: Bench) -> None:
    """A push that a client never sees must not become a figure."""
    floor = Case(server="floor", connections=5)
    with ExitStack() as stack:
        target = Target(bench, floor, stack)
        target.open()
        # One more than the round asks for, so that the next one finds it.
        target.server.ask("push")
        target.server.wait_until_quiet()
        with pytest.raises(BenchmarkError, match="5 times more"):
            target.push()


@pytest.mark.gate
def test_the_report_shows_each_bound(bench: Bench) -> None:
    figures = measure(bench, "push", Case(server="kumafast-linear", connections=20), rounds=1, idle_s=0.1)
    run = {
        "date": "2026-01-01",
        "machine": "two cores",
        "skipped": ["go-linear: no Go"],
        "figures": [figures.as_json()],
    }
    text = write_report(run)
    assert "| 20 | kumafast-linear |" in text
    assert "≤ 1.6 × the plaintext floor" in text
    assert "idle < 0.1 % of a core" in text
    assert "- go-linear: no Go" in text


@pytest.mark.informational
def test_a_thousand_connections_beside_grpc_aio(bench: Bench, report: Callable[[str], None]) -> None:
    for server in ("kumafast-linear", "grpc-aio"):
        figures = measure(bench, "push", Case(server=server, connections=1_000), rounds=ROUNDS)
        assert figures.pushes is not None
        report(
            f"{server}: {figures.pushes.cpu_us:.1f} µs a push, {figures.pushes.times_floor:.1f} times the floor, "
            f"{figures.resident_kb:.1f} KB, connect {figures.connect_us:.0f} µs, p99 {figures.pushes.p99_ms:.0f} ms"
        )
