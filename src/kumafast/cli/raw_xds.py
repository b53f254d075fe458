"""`kumafast raw-xds`: the xDS server for somebody else's resources, in the foreground.

In: two addresses; resources over the feed. Out: one `ready` line on stdout when both ports serve, logs on stderr,
exit 0 after a signal. Never: a mesh, a store; a port that strangers reach without `--insecure`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Annotated, NamedTuple

import typer

from kumafast.cli.failure import CommandError
from kumafast.cli.run import configure_logging, stop_on_signals
from kumafast.settings import is_loopback

# Together they stay below the 5 s within which the command ends, whatever clients do.
_XDS_GRACE_S = 2.0
_FEED_GRACE_S = 1.0


class Address(NamedTuple):
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def raw_xds(
    xds: Annotated[
        str,
        typer.Option("--xds", metavar="HOST:PORT", envvar="KUMAFAST_XDS", help="Where Envoys connect; port 0: any."),
    ] = "127.0.0.1:18000",
    feed: Annotated[
        str,
        typer.Option(
            "--feed", metavar="HOST:PORT", envvar="KUMAFAST_FEED", help="Where snapshots come in; 0 is any port."
        ),
    ] = "127.0.0.1:18001",
    insecure: Annotated[
        bool, typer.Option("--insecure", envvar="KUMAFAST_INSECURE", help="Allow addresses beyond loopback.")
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            "--log-level", metavar="LEVEL", envvar="KUMAFAST_LOG_LEVEL", help="One of debug, info, warning, error."
        ),
    ] = "info",
) -> None:
    """Serve resources that are put over HTTP to Envoys: SotW and delta, aggregated and each type, in plaintext."""
    addresses = [parse_address(text, flag=flag) for text, flag in ((xds, "--xds"), (feed, "--feed"))]
    for address, flag in zip(addresses, ("--xds", "--feed"), strict=True):
        if not is_loopback(address.host) and not insecure:
            raise CommandError(
                f"{flag} {address} lets anybody who reaches {address.host} in; "
                "listen on 127.0.0.1, or say --insecure if you mean it"
            )
    configure_logging(log_level)

    import uvloop

    uvloop.run(serve(*addresses))


def parse_address(text: str, *, flag: str) -> Address:
    """An address from `HOST:PORT` or `[IPv6]:PORT`. Raises `CommandError`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise CommandError(f"{flag} must have the form HOST:PORT or [IPv6]:PORT, got {text!r}")
    return Address(host, int(port))


async def serve(xds: Address, feed: Address) -> None:
    """Serve on both ports until a signal says to stop."""
    from kumafast.insights import Clients
    from kumafast.rest.feed import create_feed
    from kumafast.rest.http_server import HttpServer
    from kumafast.snapshot import SnapshotCache
    from kumafast.stream import Csds, XdsServer

    stopping = asyncio.Event()
    stop_on_signals(stopping)
    cache, clients = SnapshotCache(), Clients()
    # CSDS shows everybody's configuration, and so does the feed: both to this machine only.
    handlers = Csds(clients, cache).handlers() if is_loopback(xds.host) else None
    server = XdsServer(cache, observer=clients, handlers=handlers)
    http = HttpServer(create_feed(cache, clients))
    try:
        xds_port = await _listen(server.start(xds.host, xds.port), xds, flag="--xds")
        feed_port = await _listen(http.start(feed.host, feed.port), feed, flag="--feed")
        typer.echo(f"ready xds=grpc://{xds._replace(port=xds_port)} feed=http://{feed._replace(port=feed_port)}")
        sys.stdout.flush()
        await stopping.wait()
    finally:
        await server.stop(_XDS_GRACE_S)
        await http.stop(_FEED_GRACE_S)


async def _listen(starting: Awaitable[int], address: Address, *, flag: str) -> int:
    try:
        return await starting
    except OSError as error:
        raise CommandError(f"cannot listen on {address}: {error.strerror or error}; choose another {flag}") from error
