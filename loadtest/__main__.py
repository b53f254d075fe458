"""`python -m loadtest` (`make loadtest`): a control plane, thousands of Envoys, a scenario, a report.

In: flags. Out: progress on stdout, a report under loadtest/results, exit code 1 where anything is not as it should be.
Never: anything that is not on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import document, ending
from bench.flags import count, mesh_size, positive
from bench.real_wires import truth
from loadtest.control_plane import TLS, WatchedControlPlane, why_no_descriptors
from loadtest.outcome import Outcome
from loadtest.plan import Plan
from tests.ports import free_port

from loadtest import figures, report

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ("steady", "rollout", "policy-storm", "reconnect-storm", "zone-failure", "soak")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady")
    parser.add_argument("--users", type=mesh_size, default=1_000, help="Envoys: a multiple of 50 [default: 1000]")
    parser.add_argument("--workers", type=count, default=1, help="processes that are these Envoys [default: 1]")
    parser.add_argument("--seconds", type=positive, default=60.0, help="how long changes are made [default: 60]")
    parser.add_argument("--minutes", type=positive, help="the same in minutes")
    parser.add_argument(
        "--rate", type=positive, default=10.0, help="changes a second, where that is free [default: 10]"
    )
    parser.add_argument(
        "--spawn-rate", type=positive, default=300.0, help="Envoys that begin each second [default: 300]"
    )
    parser.add_argument("--tls", choices=TLS, default="none", help="of the Envoys' connections [default: none]")
    parser.add_argument(
        "--ui", action="store_true", help="locust's page at port 8089, for a minute longer than the run, or to Ctrl-C"
    )
    parser.add_argument(
        "--by-hand", action="store_true", help="start no locust: say how to, perhaps elsewhere, and wait for it"
    )
    parser.add_argument("--flame", action="store_true", help="a flame graph of the control plane beside the report")
    parser.add_argument("--no-plots", action="store_true", help="the report without its plots")
    parser.add_argument("--output", type=Path, help="the folder of the report [default: one of today's]")
    arguments = parser.parse_args()
    if arguments.users % arguments.workers:
        parser.error("--users must be a multiple of --workers")
    if arguments.minutes is not None:
        arguments.seconds = 60 * arguments.minutes
    if why := why_no_descriptors(arguments.users):
        parser.error(f"{why}; ask for fewer --users")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    # What is sampled is slower for that: its figures are none, and must not stand for those of the scenario.
    name = f"{today}-{arguments.scenario}-{arguments.users}" + ("-profile" if arguments.flame else "")
    folder = arguments.output or ROOT / "loadtest" / "results" / name
    with ending.early(lambda: _kept(folder, has_flame=arguments.flame)), tempfile.TemporaryDirectory() as directory:
        wrong = play(arguments, Path(directory), folder)
    sys.stdout.write(f"{folder / 'report.md'}\n" + "".join(f"wrong: {each}\n" for each in wrong))
    raise SystemExit(bool(wrong))


def _kept(folder: Path, *, has_flame: bool) -> str:
    flame = folder / "flame.svg"
    return "no report was written" + (f", but {flame}" if has_flame and flame.exists() else "")


def play(arguments: argparse.Namespace, directory: Path, folder: Path) -> list[str]:
    """One run and its report; what is not as it should be."""
    before = document.machine()
    flame = folder / "flame.svg" if arguments.flame else None
    control_plane = WatchedControlPlane(directory, users=arguments.users, tls=arguments.tls, flame=flame)
    with control_plane.running():
        host, port = control_plane.dp
        plan = Plan(
            scenario=arguments.scenario,
            users=arguments.users,
            workers=arguments.workers,
            seconds=arguments.seconds,
            rate=arguments.rate,
            api=control_plane.api,
            diagnostics=control_plane.diagnostics,
            dp_host=host,
            dp_port=port,
            directory=str(directory),
            ca=control_plane.ca,
            certificate=control_plane.certificate,
            key=control_plane.key,
            keeps_page=arguments.ui,
        )
        plan.save(directory / "plan.json")
        if arguments.by_hand:
            code = _await_locust(plan, spawn_rate=arguments.spawn_rate)
        else:
            code = _run_locust(plan, control_plane, spawn_rate=arguments.spawn_rate)
    if code or not plan.outcome_file.exists():
        return [f"locust ended with {code}"]
    outcome = Outcome.load(plan.outcome_file)
    sys.stdout.write("comparing what each Envoy holds with what a fresh control plane would give it\n")
    different = asyncio.run(truth.differences(control_plane.store, outcome.holdings))
    # The paths of this run say nothing to a reader.
    shown = replace(plan, directory="", ca="", certificate="", key="")
    made = figures.of(shown, outcome, control_plane.samples, different, tls=arguments.tls)
    asked = report.command(made)
    if arguments.flame:
        asked = asked.replace("make loadtest SCENARIO=", "make profile CASE=")
        made["notes"] = ["The control plane was sampled meanwhile, for `flame.svg`: what it used is no figure."]
    made = {**document.origin(asked, before), **made}
    report.write(folder, made, outcome, control_plane.samples, draws=not arguments.no_plots)
    return list(made["wrong"])


def _run_locust(plan: Plan, control_plane: WatchedControlPlane, *, spawn_rate: float) -> int:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]
    command += ["--plan", f"{plan.directory}/plan.json", "--users", str(plan.users), "--spawn-rate", str(spawn_rate)]
    # A refused connection while the control plane is away is no error of the run.
    command += ["--loglevel", "ERROR", "--exit-code-on-error", "0", "--stop-timeout", "0"]
    if plan.keeps_page:
        command += ["--web-host", "127.0.0.1", "--autostart"]
    else:
        command += ["--headless", "--only-summary"]
    if plan.workers > 1:
        port = str(free_port())
        command += ["--processes", str(plan.workers), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Of a terminal it would take the keys and the Ctrl-C, which is for us: with our end we end it, and its workers.
    locust = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    control_plane.client_pid = locust.pid
    try:
        return locust.wait()
    except KeyboardInterrupt:
        # Of one that was played to its end only the page was still there.
        if not (plan.keeps_page and plan.outcome_file.exists()):
            raise
        return 0
    finally:
        if locust.poll() is None:
            locust.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                locust.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(locust.pid, signal.SIGKILL)
        locust.wait()


def _await_locust(plan: Plan, *, spawn_rate: float) -> int:
    """Until somebody else's locust has left what came out."""
    locust = f"PYTHONPATH=. locust -f loadtest/locustfile.py --plan {plan.directory}/plan.json"
    sys.stdout.write(f"in this folder, {plan.workers} times:\n  {locust} --worker --master-host 127.0.0.1\nand once:\n")
    sys.stdout.write(f"  {locust} --master --expect-workers {plan.workers} --headless")
    sys.stdout.write(f" --users {plan.users} --spawn-rate {spawn_rate:g} --exit-code-on-error 0 --stop-timeout 0\n")
    sys.stdout.flush()
    while not plan.outcome_file.exists():
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    main()
