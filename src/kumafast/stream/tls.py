"""The dp-server's TLS: its files, which of two implementations serves them, and new files without a restart.

In: paths of PEM files. Out: what a listening port needs to serve TLS with what the files said last.
Never: a file in force that is of no use; a look at files for each connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from kumafast._core import HAS_TLS, Poller, TlsContext, TlsTransport

_LOG = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""How often it is looked whether the files are others: three calls of stat, and one timer, for the whole process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the server's certificate (with its chain) and private key are, as PEM.

    With `client_ca` only clients are served that have a certificate of that authority.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def create_context(self, *, alpn: Sequence[str] = ("h2", "http/1.1")) -> ssl.SSLContext:
        """A server's context for TLS 1.2 or newer, for those protocols.

        Raises OSError (ssl.SSLError is one) for files of no use.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Envoy names no protocol; grpcio insists on h2. The first bytes decide in any case.
        context.set_alpn_protocols(list(alpn))
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


class _Newest(ssl.SSLContext):
    """Gives each connection the context that is newest when it comes; to load files into one in use could half fail."""

    context: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self.context.wrap_bio(*arguments, **options)


class ServerTls:
    """TLS with the files' content as it was when they were last of use. Raises OSError where they are not at first."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._core: TlsContext | None = None
        self._python: _Newest | None = None
        # The files as they were when they were loaded last, of use or not; and when they were looked at last.
        self._loaded = self._looked = _stamp(files)
        self._timer: asyncio.TimerHandle | None = None
        self.certificate_pem = b""
        """The certificate that is shown, with its chain."""
        self._load()

    def describe(self) -> str:
        """Which implementation serves whom, in words."""
        words = "TLS by Python's ssl, at half the speed: this kumafast was built without OpenSSL's headers"
        if self._core is not None:
            words = "TLS by OpenSSL in the compiled core"
        if self._files.client_ca is not None:
            words += f"; clients need a certificate of {self._files.client_ca}"
        return words

    def listen(
        self,
        create_protocol: Callable[[], asyncio.Protocol],
        *,
        handshake_s: float,
        note: Callable[[TlsTransport], None],
        poller: Poller,
    ) -> tuple[Callable[[], asyncio.BaseProtocol], dict[str, Any]]:
        """A factory of protocols and options for the loop's `create_server`.

        `note` is told of the core's own, whose sockets the poller reads.
        """
        core = self._core
        if core is None:
            return create_protocol, {"ssl": self._python, "ssl_handshake_timeout": handshake_s}

        def create() -> asyncio.BaseProtocol:
            transport = TlsTransport(core, create_protocol, handshake_s, poller)
            note(transport)
            return cast(asyncio.BaseProtocol, transport)

        return create, {}

    def reload(self) -> bool:
        """Read the files anew, for the connections to come; where they are of no use, say so and leave all as it is."""
        self._loaded = _stamp(self._files)
        try:
            self._load()
        except OSError as error:
            _LOG.error(
                "the certificate is not reloaded, the one in force stays: %s; mend the files: they are read again "
                "when they change, or at once with SIGHUP",
                error,
            )
            return False
        _LOG.info("reloaded the certificate for new connections: %s", self._named())
        return True

    def watch(self) -> None:
        """Reload whenever the files are others, until `close`. They must be the same at two looks one after another."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def close(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.watch()
        seen, self._looked = self._looked, _stamp(self._files)
        # Certificate and key are written one after the other, and in between they do not fit.
        if self._looked == seen and seen != self._loaded:
            self.reload()

    def _load(self) -> None:
        files = self._files
        try:
            pem = files.certificate.read_bytes()
            if not HAS_TLS:
                context = files.create_context()
                self._python = self._python or _Newest(ssl.PROTOCOL_TLS_SERVER)
                self._python.context = context
            elif self._core is None:
                self._core = TlsContext(files.certificate, files.key, files.client_ca)
            else:
                self._core.reload(files.certificate, files.key, files.client_ca)
        except OSError as error:
            # Neither implementation names the file that it means.
            raise OSError(f"TLS cannot be served with {self._named()}: {error}") from error
        self.certificate_pem = pem

    def _named(self) -> str:
        return ", ".join(map(str, self._files.paths))


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes whenever a file is written, replaced or pointed elsewhere."""
    found: list[tuple[int, int, int] | None] = []
    for path in files.paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
