"""`kumafast run`: the control plane in the foreground.

In: flags, variables, a file. Out: one `ready` line on stdout when everything serves, logs on stderr, exit 0 after a
signal. Never: a `ready` line before the servers answer; anything else on stdout.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast import garbage
from kumafast.cli.failure import CommandError

if TYPE_CHECKING:
    from kumafast.control_plane import ControlPlane
    from kumafast.settings import Settings

_LOG = logging.getLogger("kumafast.run")
# Stopping must end within 10 s, whatever clients do.
_DRAIN_S = 9.0
_LEVELS = ("debug", "info", "warning", "error")


def _flag(name: str, help_text: str, *, metavar: str | None = None) -> Any:
    variable = "KUMAFAST_" + name.removeprefix("--").split("/")[0].replace("-", "_").upper()
    return typer.Option(name, help=help_text, metavar=metavar, envvar=variable, show_default=False)


def run(
    config: Annotated[
        Path | None, typer.Option("--config", envvar="KUMAFAST_CONFIG", help="A YAML file of settings.")
    ] = None,
    store: Annotated[
        str | None, _flag("--store", "memory or sqlite:PATH [default: SQLite in the data directory]", metavar="URL")
    ] = None,
    data_dir: Annotated[
        str | None, _flag("--data-dir", "For the store and certificates [default: the user's own].")
    ] = None,
    host: Annotated[str | None, _flag("--host", "The address to listen on [default: 127.0.0.1]")] = None,
    api_port: Annotated[int | None, _flag("--api-port", "The API's port, 0 for any free one [default: 5681]")] = None,
    dp_port: Annotated[
        int | None, _flag("--dp-port", "The port for Envoys, 0 for any free one [default: 5678]")
    ] = None,
    diagnostics_port: Annotated[
        int | None, _flag("--diagnostics-port", "The port of /ready and /metrics, 0 for any free one [default: 5680]")
    ] = None,
    dp_tls: Annotated[bool | None, _flag("--dp-tls/--no-dp-tls", "TLS towards the Envoys [default: dp-tls]")] = None,
    dp_tls_cert: Annotated[
        str | None, _flag("--dp-tls-cert", "Its certificate, PEM [default: made at first start]")
    ] = None,
    dp_tls_key: Annotated[str | None, _flag("--dp-tls-key", "The key of the certificate, PEM.")] = None,
    dp_auth: Annotated[
        str | None, _flag("--dp-auth", "How Envoys prove who they are: token or none [default: none]")
    ] = None,
    insecure: Annotated[
        bool | None, _flag("--insecure/--no-insecure", "Allow --no-dp-tls and --dp-auth none beyond loopback.")
    ] = None,
    workers: Annotated[int | None, _flag("--workers", "How many processes share the ports [default: 1]")] = None,
    zone: Annotated[str | None, _flag("--zone", "The zone's name [default: default]")] = None,
    debounce_ms: Annotated[
        float | None, _flag("--debounce-ms", "Changes within this time go together [default: 5]")
    ] = None,
    leds_threshold: Annotated[
        int | None,
        _flag("--leds-threshold", "Endpoints of a service from which on they are sent one by one [default: 0, never]"),
    ] = None,
    insight_flush_ms: Annotated[
        float | None, _flag("--insight-flush-ms", "Statuses are stored at most this often [default: 250]")
    ] = None,
    log_level: Annotated[
        str | None, _flag("--log-level", f"One of {', '.join(_LEVELS)} [default: info]", metavar="LEVEL")
    ] = None,
) -> None:
    """Run the control plane. Every flag is also a variable and a key of the file: flag > variable > file > default."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    from kumafast.settings import load

    settings = load(flags, config=config)
    configure_logging(settings.log_level)

    import uvloop

    raise typer.Exit(uvloop.run(serve(settings)))


async def serve(settings: Settings) -> int:
    """Run a control plane until a signal says to stop; the exit code."""
    from kumafast.control_plane import ControlPlane

    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    control_plane = ControlPlane(settings)
    starting = asyncio.create_task(_start(control_plane, settings))
    asked = asyncio.create_task(stopping.wait())
    # A signal counts during the start as well: a store that does not open must not hold the process.
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    elif starting.exception() is not None:
        asked.cancel()
        await _stop(control_plane)
        starting.result()
    else:
        _announce(control_plane, settings)
        await asked
    _LOG.info("stopping")
    return 0 if await _stop(control_plane) else 1


async def _start(control_plane: ControlPlane, settings: Settings) -> None:
    try:
        with garbage.left_alone():
            await control_plane.start()
            garbage.keep_what_is()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            ports = ", ".join(str(getattr(settings, f"{name}_port")) for name in ("api", "dp", "diagnostics"))
            raise CommandError(
                f"another process listens on {settings.host} at one of the ports {ports} ({error.strerror or error}); "
                "stop it, or choose others with --api-port, --dp-port and --diagnostics-port (0 = any free one)"
            ) from error
        if error.errno in {errno.EADDRNOTAVAIL, errno.EACCES}:
            raise CommandError(f"cannot listen on {settings.host}: {error.strerror or error}") from error
        raise CommandError(f"cannot start: {error}") from error


def _announce(control_plane: ControlPlane, settings: Settings) -> None:
    if settings.dp_tls and not settings.dp_tls_cert:
        _LOG.info(
            "the Envoys' port has a certificate of its own making; dataplanes need --ca-cert-file %s",
            certificate(settings),
        )
    addresses = f"api={control_plane.api_url} dp={control_plane.dp_url} diagnostics={control_plane.diagnostics_url}"
    typer.echo(f"ready {addresses}")
    sys.stdout.flush()


def certificate(settings: Settings) -> Path:
    """Where the dp-server's certificate is: the one given, or the one that is made at first start."""
    return Path(settings.dp_tls_cert) if settings.dp_tls_cert else settings.data_path / "dp-server.crt"


async def _stop(control_plane: ControlPlane) -> bool:
    try:
        async with asyncio.timeout(_DRAIN_S):
            await control_plane.stop()
    except TimeoutError:
        _LOG.error("not everything ended within %g s; leaving it", _DRAIN_S)
        return False
    return True


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stopping.is_set():
            # The second signal means now. Nothing is lost: what was acknowledged is in the store already.
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)


def configure_logging(level: str) -> None:
    """Log to stderr, with colours on a terminal only; `CommandError` for a level that there is not."""
    if level.lower() not in _LEVELS:
        raise CommandError(f"log_level must be one of {', '.join(_LEVELS)}, got {level!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(is_coloured=sys.stderr.isatty() and "NO_COLOR" not in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The libraries' own chatter is of use to those who debug, and to nobody else.
    for name in ("httpx", "httpcore", "asyncio", "uvicorn.access"):
        logging.getLogger(name).setLevel(level.upper() if level.lower() == "debug" else logging.WARNING)


class _Formatter(logging.Formatter):
    """`2026-01-02 03:04:05.678 INFO kumafast.run: message`."""

    _COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}  # noqa: RUF012

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = self._COLOURS.get(record.levelno) if self._is_coloured else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text
