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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kumafast import garbage
from kumafast.cli.failure import CommandError
from kumafast.cli.run_flags import (
    LOG_LEVELS,
    AnonymousAccessOption,
    ApiClientCaOption,
    ApiPortOption,
    ApiTlsCertOption,
    ApiTlsKeyOption,
    ApiTlsPortOption,
    ConfigOption,
    CreateMeshRoutingResourcesOption,
    CsdsOption,
    DataDirOption,
    DebounceMsOption,
    DiagnosticsPortOption,
    DnsServerCidrOption,
    DnsServerDomainOption,
    DnsServerServiceVipEnabledOption,
    DnsServerServiceVipPortOption,
    DpAuthOption,
    DpClientCaOption,
    DpPortOption,
    DpTlsCertOption,
    DpTlsKeyOption,
    DpTlsOption,
    DpTokenKeysOption,
    DrainOption,
    HdsCheckHealthyThresholdOption,
    HdsCheckIntervalMsOption,
    HdsCheckTimeoutMsOption,
    HdsCheckUnhealthyThresholdOption,
    HdsEnabledOption,
    HdsIntervalMsOption,
    HostOption,
    InsecureOption,
    InsightFlushMsOption,
    IpamMeshExternalServiceCidrOption,
    IpamMeshMultiZoneServiceCidrOption,
    IpamMeshServiceCidrOption,
    LedsThresholdOption,
    LocalhostIsAdminOption,
    LogLevelOption,
    ProxiesSoftLimitOption,
    SecretsKeyFileOption,
    SecretsKeyOption,
    StoreOption,
    WorkersOption,
    ZoneOption,
)

if TYPE_CHECKING:
    from kumafast.control_plane import ControlPlane
    from kumafast.settings import Settings

_LOG = logging.getLogger("kumafast.run")
# Stopping must end within 10 s, whatever clients do.
_DRAIN_S = 9.0


def run(
    config: ConfigOption = None,
    store: StoreOption = None,
    data_dir: DataDirOption = None,
    host: HostOption = None,
    api_port: ApiPortOption = None,
    dp_port: DpPortOption = None,
    diagnostics_port: DiagnosticsPortOption = None,
    dp_tls: DpTlsOption = None,
    dp_tls_cert: DpTlsCertOption = None,
    dp_tls_key: DpTlsKeyOption = None,
    dp_client_ca: DpClientCaOption = None,
    dp_auth: DpAuthOption = None,
    dp_token_keys: DpTokenKeysOption = None,
    localhost_is_admin: LocalhostIsAdminOption = None,
    anonymous_access: AnonymousAccessOption = None,
    api_tls_port: ApiTlsPortOption = None,
    api_tls_cert: ApiTlsCertOption = None,
    api_tls_key: ApiTlsKeyOption = None,
    api_client_ca: ApiClientCaOption = None,
    csds: CsdsOption = None,
    insecure: InsecureOption = None,
    secrets_key: SecretsKeyOption = None,
    secrets_key_file: SecretsKeyFileOption = None,
    workers: WorkersOption = None,
    drain_s: DrainOption = None,
    proxies_soft_limit: ProxiesSoftLimitOption = None,
    zone: ZoneOption = None,
    create_mesh_routing_resources: CreateMeshRoutingResourcesOption = None,
    dns_server_domain: DnsServerDomainOption = None,
    dns_server_cidr: DnsServerCidrOption = None,
    dns_server_service_vip_enabled: DnsServerServiceVipEnabledOption = None,
    dns_server_service_vip_port: DnsServerServiceVipPortOption = None,
    ipam_mesh_service_cidr: IpamMeshServiceCidrOption = None,
    ipam_mesh_external_service_cidr: IpamMeshExternalServiceCidrOption = None,
    ipam_mesh_multi_zone_service_cidr: IpamMeshMultiZoneServiceCidrOption = None,
    debounce_ms: DebounceMsOption = None,
    leds_threshold: LedsThresholdOption = None,
    insight_flush_ms: InsightFlushMsOption = None,
    hds_enabled: HdsEnabledOption = None,
    hds_interval_ms: HdsIntervalMsOption = None,
    hds_check_interval_ms: HdsCheckIntervalMsOption = None,
    hds_check_timeout_ms: HdsCheckTimeoutMsOption = None,
    hds_check_healthy_threshold: HdsCheckHealthyThresholdOption = None,
    hds_check_unhealthy_threshold: HdsCheckUnhealthyThresholdOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Run the control plane. Every flag is also a variable and a key of the file: flag > variable > file > default."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    from kumafast.settings import load

    settings = load(flags, config=config)
    configure_logging(settings.log_level)

    if settings.workers > 1:
        from kumafast.cli import supervisor

        raise typer.Exit(asyncio.run(supervisor.serve(settings)))

    import uvloop

    code = uvloop.run(serve(settings))
    # All of it goes with the process: the interpreter need not look through it for cycles first.
    garbage.keep_what_is()
    raise typer.Exit(code)


async def serve(settings: Settings) -> int:
    """Run a control plane until a signal says to stop; the exit code."""
    garbage.return_large()
    stop_looking = garbage.begin()
    looking = asyncio.create_task(garbage.follow(), name="garbage")
    try:
        return await _serve(settings)
    finally:
        looking.cancel()
        stop_looking()


async def _serve(settings: Settings) -> int:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    # What is imported stays as well.
    with garbage.left_alone():
        from kumafast.control_plane import ControlPlane

        control_plane = ControlPlane(settings)
        # Without a handler it would end the process. Where there is no TLS there is nothing to reload.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, control_plane.reload_certificate)
        is_started = await start_unless(stopping, control_plane, settings)
    if is_started:
        addresses = {
            "api": control_plane.api_url,
            "dp": control_plane.dp_url,
            "diagnostics": control_plane.diagnostics_url,
        }
        announce(settings, addresses, admin_token=control_plane.admin_token, api_tls_url=control_plane.api_tls_url)
        await stopping.wait()
    _LOG.info("stopping")
    return 0 if await stop(control_plane) else 1


async def start_unless(stopping: asyncio.Event, control_plane: ControlPlane, settings: Settings) -> bool:
    """Start it, unless it is to stop before it serves: False then. Raises what `ControlPlane.start` does."""
    starting = asyncio.create_task(_start(control_plane, settings))
    asked = asyncio.create_task(stopping.wait())
    # A signal counts during the start as well: a store that does not open must not hold the process.
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    if starting.exception() is not None:
        await stop(control_plane)
    starting.result()
    return True


async def _start(control_plane: ControlPlane, settings: Settings) -> None:
    try:
        with garbage.left_alone():
            await control_plane.start()
            garbage.keep_what_is()
    except OSError as error:
        raise cannot_start(error, settings) from error


def cannot_start(error: OSError, settings: Settings) -> CommandError:
    """What is to be done where something cannot be opened."""
    if error.errno == errno.EADDRINUSE:
        asked = (getattr(settings, f"{name}_port") for name in ("api", "dp", "diagnostics"))
        ports = ", ".join(str(port) for port in asked if port)
        return CommandError(
            f"another process listens on {settings.host} at one of the ports {ports} ({error.strerror or error}); "
            "stop it, or choose others with --api-port, --dp-port and --diagnostics-port (0 = any free one)"
        )
    if error.errno in {errno.EADDRNOTAVAIL, errno.EACCES}:
        return CommandError(f"cannot listen on {settings.host}: {error.strerror or error}")
    return CommandError(f"cannot start: {error}")


def announce(settings: Settings, addresses: Mapping[str, str], *, admin_token: str, api_tls_url: str) -> None:
    """Say that everything serves, and where."""
    if settings.dp_tls and not settings.dp_tls_cert:
        _LOG.info(
            "the Envoys' port has a certificate of its own making; dataplanes need --ca-cert-file %s",
            certificate(settings),
        )
    if admin_token:
        # To the terminal and not to the log: it is shown this once, and kept nowhere.
        typer.echo(f"The administrator's token, shown only now:\n{admin_token}", err=True)
    if api_tls_url:
        _LOG.info("the API over TLS is at %s", api_tls_url)
    typer.echo("ready " + " ".join(f"{name}={url}" for name, url in addresses.items()))
    sys.stdout.flush()


def certificate(settings: Settings) -> Path:
    """Where the dp-server's certificate is: the one given, or the one that is made at first start."""
    return Path(settings.dp_tls_cert) if settings.dp_tls_cert else settings.data_path / "dp-server.crt"


async def stop(control_plane: ControlPlane) -> bool:
    """Stop it; False where not everything has ended in time."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            await control_plane.stop()
    except TimeoutError:
        _LOG.error("not everything ended within %g s; leaving it", _DRAIN_S)
        return False
    return True


def stop_on_signals(stopping: asyncio.Event) -> None:
    """Set `stopping` at the first SIGTERM or SIGINT; end the process at the second."""
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stopping.is_set():
            # The second signal means now. Nothing is lost: what was acknowledged is in the store already.
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)


def configure_logging(level: str, *, worker: int = 0) -> None:
    """Log to stderr, with colours on a terminal only; `CommandError` for a level that there is not.

    Lines of a `worker` say which of several it is.
    """
    if level.lower() not in LOG_LEVELS:
        raise CommandError(f"log_level must be one of {', '.join(LOG_LEVELS)}, got {level!r}")
    handler = logging.StreamHandler(sys.stderr)
    is_coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(_Formatter(is_coloured=is_coloured, worker=worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The libraries' own chatter is of use to those who debug, and to nobody else.
    for name in ("httpx", "httpcore", "asyncio", "uvicorn.access"):
        logging.getLogger(name).setLevel(level.upper() if level.lower() == "debug" else logging.WARNING)


class _Formatter(logging.Formatter):
    """`2026-01-02 03:04:05.678 INFO kumafast.run: message`, of a worker `… INFO worker-1 kumafast.run: message`."""

    _COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}  # noqa: RUF012

    def __init__(self, *, is_coloured: bool, worker: int) -> None:
        name = f"worker-{worker} %(name)s" if worker else "%(name)s"
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)s {name}: %(message)s", "%Y-%m-%d %H:%M:%S")
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = self._COLOURS.get(record.levelno) if self._is_coloured else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text
