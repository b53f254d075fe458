"""`python -m loadtest.many` (`make load-many`): tens of thousands of delta streams on a whole control plane.

In: flags. Out: progress on stdout, a report under loadtest/results, exit code 1 where anything is not as it should be.
Never: locust, of which each Envoy is a greenlet with a connection; here a program in C++ is all of them, and several
share a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
import tempfile
from pathlib import Path

from bench import document, ending
from bench.flags import count, mesh_size, positive
from bench.real_wires import truth
from bench.regular_mesh import PER_SERVICE
from bench.wire.process import ROOT
from loadtest.control_plane import WatchedControlPlane, why_no_descriptors
from loadtest.many.client import Envoys
from loadtest.many.play import Play
from loadtest.outcome import Outcome
from loadtest.plan import Plan

from loadtest import figures, report

RATE, SECONDS = 20.0, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.many", description=__doc__)
    parser.add_argument("--streams", type=mesh_size, default=50_000, help="Envoys: a multiple of 50 [default: 50000]")
    parser.add_argument("--each", type=count, default=10, help="streams on each connection [default: 10]")
    parser.add_argument("--rate", type=positive, default=RATE, help="endpoints that move each second [default: 20]")
    parser.add_argument(
        "--seconds", type=positive, help="for so long [default: 20, or less where each service has moved one by then]"
    )
    parser.add_argument("--no-plots", action="store_true", help="the report without its plots")
    parser.add_argument("--output", type=Path, help="the folder of the report [default: one of today's]")
    arguments = parser.parse_args()
    if arguments.streams % arguments.each:
        parser.error("--streams must be a multiple of --each")
    if why := why_no_descriptors(arguments.streams // arguments.each):
        parser.error(f"{why}; ask for more streams on --each connection")
    services = arguments.streams // PER_SERVICE
    seconds_most = services / arguments.rate
    if arguments.seconds is None:
        arguments.seconds = min(SECONDS, seconds_most)
    if arguments.seconds > seconds_most:
        parser.error(
            f"each of {services:,} services (--streams by {PER_SERVICE}) moves one endpoint: "
            f"with --rate {arguments.rate:g} that takes --seconds {seconds_most:g} at most"
        )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = arguments.output or ROOT / "loadtest" / "results" / f"{today}-many-{arguments.streams}"
    with ending.early(lambda: "no report was written"), tempfile.TemporaryDirectory() as directory:
        wrong = play(arguments, Path(directory), folder)
    sys.stdout.write(f"{folder / 'report.md'}\n" + "".join(f"wrong: {each}\n" for each in wrong))
    raise SystemExit(bool(wrong))


def play(arguments: argparse.Namespace, directory: Path, folder: Path) -> list[str]:
    """One run and its report; what is not as it should be."""
    before = document.machine()
    outcome = Outcome()
    control_plane = WatchedControlPlane(directory, users=arguments.streams, tls="none")
    with control_plane.running():
        host, port = control_plane.dp
        plan = Plan(
            scenario="many",
            users=arguments.streams,
            workers=1,
            seconds=arguments.seconds,
            rate=arguments.rate,
            api=control_plane.api,
            diagnostics=control_plane.diagnostics,
            dp_host=host,
            dp_port=port,
            directory="",
        )
        connections = arguments.streams // arguments.each
        with Envoys(directory, port=port, connections=connections, each=arguments.each) as envoys:
            control_plane.client_pid = envoys.pid
            played = Play(plan, envoys, outcome)
            played.all()
            outcome.holdings, misnamed = envoys.holdings()
            outcome.problems += misnamed
            control_plane.client_pid = None
    sys.stdout.write("comparing what each Envoy holds with what a fresh control plane would give it\n")
    different = asyncio.run(truth.differences(control_plane.store, outcome.holdings))
    made = figures.of(plan, outcome, control_plane.samples, different, tls="none")
    made["streams_each_connection"] = arguments.each
    for name, seconds in played.acknowledged_s.items():
        made["phases"][name]["acknowledged_s"] = seconds
    made = {**document.origin(_command(arguments), before), **made}
    made["notes"] = [
        f"{connections:,} connections with {arguments.each} streams each; each stream is a node of its own.",
        *(
            f"{name}: all had acknowledged it {seconds:.2f} s after it was asked for."
            for name, seconds in played.acknowledged_s.items()
        ),
    ]
    report.write(folder, made, outcome, control_plane.samples, draws=not arguments.no_plots)
    return list(made["wrong"])


def _command(arguments: argparse.Namespace) -> str:
    """What a reader types to have this run again."""
    usual_s = min(SECONDS, arguments.streams // PER_SERVICE / RATE)
    if (arguments.rate, arguments.seconds) == (RATE, usual_s):
        return f"make load-many STREAMS={arguments.streams} EACH={arguments.each}"
    flags = {name: getattr(arguments, name) for name in ("streams", "each", "rate", "seconds")}
    return " ".join(["python -m loadtest.many", *(f"--{name} {value:g}" for name, value in flags.items())])


if __name__ == "__main__":
    main()
