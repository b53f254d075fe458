"""`kumafast demo`: a mesh with real Envoys on loopback, in three steps, each proved.

In: nothing. Out: what was done, what it proved, how long it took; exit 0 where everything held. Never: ports, files or
processes that are left behind.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast.cli.failure import CommandError

if TYPE_CHECKING:
    from kumafast.cli.demo_steps import Stage

# The admin sockets lie two levels below, and a socket's path is short by law of the kernel.
_DIRECTORY_LENGTH_MAX = 70


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards, until Ctrl-C.")] = False,
    envoy: Annotated[
        str | None,
        typer.Option("--envoy", metavar="PATH", help="The Envoy to run [default: KUMAFAST_ENVOY, cache, PATH]"),
    ] = None,
) -> None:
    """Start a mesh with real Envoys on loopback, and prove that it works."""
    from kumafast.cli import envoy as envoys
    from kumafast.cli.demo_process import Processes
    from kumafast.cli.demo_steps import Stage

    binary = envoys.required(envoy)
    directory = _make_directory()
    _say(f"A mesh with real Envoys ({envoys.version_of(binary)}) on loopback; everything lies in {directory}")
    stage = Stage(directory, binary, Processes(directory))
    began = time.monotonic()
    with _interruptible():
        try:
            _play(stage)
            _say(f"\nAll of it held. {time.monotonic() - began:.1f} s")
            if keep:
                _keep(stage)
        except CommandError as error:
            _mark("failed", typer.colors.RED, str(error), None)
            raise CommandError("the demo did not hold", error.details) from error
        except KeyboardInterrupt:
            raise CommandError("interrupted; nothing of the demo is left") from None
        finally:
            # From here on nothing interrupts: a process left behind would hold its port.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stage.processes.stop_all()
            shutil.rmtree(directory, ignore_errors=True)


def _play(stage: Stage) -> None:
    from kumafast.cli import demo_load, demo_secure, demo_steps

    _say("\n1. Start")
    _step(demo_steps.start_control_plane, stage)
    _say("\n2. Connect")
    _step(demo_steps.add_echo, stage, "echo-1")
    _step(demo_steps.add_client, stage)
    _step(demo_steps.prove_both_sidecars, stage)
    with demo_load.running(stage.url) as load:
        began = time.monotonic()
        _step(demo_steps.add_echo, stage, "echo-2")
        _step(demo_steps.see_both, stage, load)
        removal = time.monotonic()
        _step(demo_steps.remove_first, stage, load)
        _step(demo_steps.stop_first, stage, load)
        lost = len(load.lost(began, removal)), len(load.lost(removal))
    _say(f"      of all {len(load.outcomes)} requests {lost[0]} were lost while echo-2 started, {lost[1]} afterwards")
    _step(demo_steps.check_overview, stage)
    for line in demo_steps.run_kumafast("--api", stage.api, "inspect", "dataplanes").splitlines():
        _say(f"      {line}")
    _say("\n3. Secure")
    _step(demo_steps.add_client, stage, demo_secure.STRANGER)
    _step(demo_secure.see_it_open, stage)
    _step(demo_secure.turn_tls_on, stage)
    _step(demo_secure.permit_client, stage)
    _step(demo_secure.take_permission_away, stage)


def _step(action: Callable[..., str], *arguments: Any) -> None:
    began = time.monotonic()
    proved = action(*arguments)
    _mark("ok", typer.colors.GREEN, proved, time.monotonic() - began)


def _mark(word: str, colour: str, text: str, seconds: float | None) -> None:
    typer.secho(f"  {word:<4}", fg=colour, nl=False)
    _say(text + ("" if seconds is None else f"  [{seconds * 1000:.0f} ms]"))


def _keep(stage: Stage) -> None:
    kumafast = f"{sys.executable} -m kumafast --api {stage.api}"
    _say("\nIt runs until Ctrl-C. Try:")
    for command in (f"curl {stage.url}", f"{kumafast} inspect dataplanes", f"{kumafast} get dataplane client -o yaml"):
        _say(f"  {command}")
    try:
        while True:
            stage.processes.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        _say("\nStopping.")


def _make_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="kumafast-demo-"))
    if len(str(directory)) > _DIRECTORY_LENGTH_MAX:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="kumafast-demo-", dir="/tmp"))
    return directory


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that its processes end with it; both do in a shell's background, too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()
