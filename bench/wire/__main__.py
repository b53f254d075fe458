"""`python -m bench.wire`: measure the wire and its peers in one run.

In: which parts, sizes and servers. Out: a table for each part on stdout, and both it and the JSON in bench/results.
Never: a figure of a server that was not there; what is left out is said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ending
from bench.flags import count
from bench.wire.measure import measure
from bench.wire.process import ROOT, BenchmarkError
from bench.wire.report import write_report
from bench.wire.servers import KUMAFAST, PEERS, Bench, prepare, why_no_compiler
from bench.wire.target import Case

_PARTS = ("push", "tls", "many", "streams", "storm", "node")
_TLS_CONNECTIONS = 5_000
_MANY_CONNECTIONS = 19_000
_STREAMS_CONNECTIONS, _STREAMS_EACH = 5_000, 10
_STORM_CONNECTIONS = 10_000
_NODE_CONNECTIONS = 1_000
# At this many a process's rest is worth a look.
_IDLE_CONNECTIONS = 10_000
_IDLE_S = 5.0
# Beside its connections: the loop's own descriptors, the pipes, the listening socket.
_DESCRIPTORS_OWN = 100


@dataclass(frozen=True)
class _Planned:
    part: str
    case: Case
    rounds: int
    idle_s: float = 0.0


def _plan(arguments: argparse.Namespace) -> Iterator[_Planned]:
    rounds = arguments.rounds
    for size in arguments.sizes:
        for server in arguments.servers:
            idle_s = _IDLE_S if size >= _IDLE_CONNECTIONS else 0.0
            yield _Planned("push", Case(server=server, connections=size), rounds, idle_s)
    for server in arguments.servers:
        case = Case(server=server, connections=_TLS_CONNECTIONS, is_tls=True)
        if server in ("kumafast-linear", "grpc-aio", "go-linear"):
            yield _Planned("tls", case, rounds)
    for server in arguments.servers:
        if server in KUMAFAST:
            yield _Planned("many", Case(server=server, connections=_MANY_CONNECTIONS), rounds, _IDLE_S)
    for server in arguments.servers:
        if server in KUMAFAST:
            case = Case(server=server, connections=_STREAMS_CONNECTIONS, streams=_STREAMS_EACH)
            yield _Planned("streams", case, rounds)
    for server in arguments.servers:
        yield _Planned("storm", Case(server=server, connections=_STORM_CONNECTIONS, window=_STORM_CONNECTIONS), 0)
    for server in arguments.servers:
        for repeats in (False, True):
            case = Case(server=server, connections=_NODE_CONNECTIONS, has_large_node=True, repeats_node=repeats)
            yield _Planned("node", case, rounds)


def _run(arguments: argparse.Namespace, bench: Bench) -> tuple[list[dict[str, Any]], list[str]]:
    figures: list[dict[str, Any]] = []
    skipped: list[str] = []
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for planned in _plan(arguments):
        case = planned.case
        label = f"{planned.part}: {case.server}, {case.connections:,} connections"
        if planned.part not in arguments.parts:
            continue
        if case.server.startswith("go-") and bench.go is None:
            skipped.append(f"{label}: {bench.why_no_go}")
        elif case.is_tls and not bench.has_tls:
            skipped.append(f"{label}: the load client was built without OpenSSL")
        elif descriptors != resource.RLIM_INFINITY and case.connections + _DESCRIPTORS_OWN > descriptors:
            skipped.append(f"{label}: a process may have {descriptors:,} descriptors here")
        else:
            began = time.monotonic()
            try:
                measured = measure(bench, planned.part, case, rounds=planned.rounds, idle_s=planned.idle_s)
            except BenchmarkError as error:
                skipped.append(f"{label}: failed, {error}")
            else:
                figures.append(measured.as_json())
            sys.stderr.write(f"{label}: {time.monotonic() - began:.0f} s\n")
    return figures, list(dict.fromkeys(skipped))


def _machine(load_before: float, seconds: float) -> str:
    load = f"load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after {seconds / 60:.0f} minutes"
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, {load}"


def _as_lines(run: dict[str, Any]) -> str:
    """JSON with a line for each case, so that two runs can be compared line by line."""
    head = json.dumps({key: each for key, each in run.items() if key != "figures"}, ensure_ascii=False)
    figures = ",\n".join(json.dumps(each) for each in run["figures"])
    return f'{head[:-1]}, "figures": [\n{figures}\n]}}\n'


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.wire", description="Measure the wire beside its peers.")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--servers", nargs="+", choices=[*KUMAFAST, *PEERS], default=[*KUMAFAST, *PEERS])
    parser.add_argument("--sizes", nargs="+", type=count, default=[1_000, 5_000, 10_000], help="of the part `push`")
    parser.add_argument("--rounds", type=count, default=7, help="pushes that count; the medians are reported")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results", help="the folder for the results")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    missing = why_no_compiler()
    if missing is not None:
        sys.stderr.write(f"nothing was measured: {missing}\n")
        return 1
    with ending.early(), tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), with_go=any(server.startswith("go-") for server in arguments.servers))
        load_before, began = os.getloadavg()[0], time.monotonic()
        figures, skipped = _run(arguments, bench)
        machine = _machine(load_before, time.monotonic() - began)
    date = datetime.date.today().isoformat()
    run = {"date": date, "machine": machine, "skipped": skipped, "figures": figures}
    text = write_report(run)
    sys.stdout.write(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{date}-wire.json").write_text(_as_lines(run), encoding="utf-8")
    (arguments.output / f"{date}-wire.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
