"""One of several workers of `kumafast run`: a whole control plane on ports that it shares.

In: a line of JSON on stdin with settings and a place, then words: `drain`; the end of stdin says that the supervisor
is gone. Out: lines of JSON on stdout: once it serves, its addresses; before it ends in order, its last metrics.
Never: a process that outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from kumafast import garbage
from kumafast.cli import run
from kumafast.cli.failure import print_error
from kumafast.control_plane import ControlPlane
from kumafast.errors import KumafastError
from kumafast.settings import Settings

DRAIN = b"drain\n"


def main() -> int:
    """Serve until the supervisor says otherwise; the exit code."""
    order = json.loads(sys.stdin.buffer.readline())
    settings = Settings(**order["settings"])
    run.configure_logging(settings.log_level, worker=order["worker"])
    try:
        return uvloop.run(_serve(settings, Path(order["socket"])))
    except KumafastError as error:
        print_error(error)
        return 1


async def _serve(settings: Settings, socket_path: Path) -> int:
    garbage.return_large()
    stop_looking = garbage.begin()
    looking = asyncio.create_task(garbage.follow(), name="garbage")
    stopping, draining = asyncio.Event(), asyncio.Event()
    run.stop_on_signals(stopping)
    # To read the certificate anew is the business of the worker that replaces this one.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
    listening = asyncio.create_task(_listen(stopping, draining), name="supervisor")
    control_plane = ControlPlane(settings, socket_path=socket_path)
    try:
        if await run.start_unless(stopping, control_plane, settings):
            _say(
                {
                    "api": control_plane.api_url,
                    "api_tls": control_plane.api_tls_url,
                    "dp": control_plane.dp_url,
                    "admin_token": control_plane.admin_token,
                }
            )
            await _drained(control_plane, stopping, draining, settings.drain_s)
        is_stopped = await run.stop(control_plane)
        _say({"metrics": control_plane.metrics.exposition().decode()})
        return 0 if is_stopped else 1
    finally:
        looking.cancel()
        listening.cancel()
        stop_looking()


async def _drained(
    control_plane: ControlPlane, stopping: asyncio.Event, draining: asyncio.Event, spread_s: float
) -> None:
    """Return when it is to stop: at once, or once its proxies have been sent away."""
    stopped, drained = asyncio.create_task(stopping.wait()), asyncio.create_task(draining.wait())
    await asyncio.wait({stopped, drained}, return_when=asyncio.FIRST_COMPLETED)
    drained.cancel()
    if not stopping.is_set():
        leaving = asyncio.create_task(control_plane.drain(spread_s))
        await asyncio.wait({stopped, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    stopped.cancel()


async def _listen(stopping: asyncio.Event, draining: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while word := await reader.readline():
        if word == DRAIN:
            draining.set()
    stopping.set()


def _say(what: dict[str, Any]) -> None:
    # Nobody may be there to hear it; the end of stdin says so as well.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
