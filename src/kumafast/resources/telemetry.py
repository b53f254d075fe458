"""Where the logs and traces of a mesh go: the backends that policies choose by name.

In: documents in Kuma's 2.14 form. Out: frozen values, and the rules that they break. Never: whose logs and traces.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, Strict, ValidationError

from kumafast.errors import Violation
from kumafast.resources import backends
from kumafast.resources.fields import Flag, Loose, Text, Whole
from kumafast.resources.resource import Frozen
from kumafast.resources.validation import check_port

FILE = "file"
TCP = "tcp"
ZIPKIN = "zipkin"
DATADOG = "datadog"

_UNKNOWN_TYPE = "unknown backend type. Available backends: "
_ZIPKIN_VERSIONS = ("httpJsonV1", "httpJson", "httpProto")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):[^:]+")


class FileLog(Frozen):
    """The conf of a backend that is a file on the host of each proxy."""

    path: Text = ""


class TcpLog(Frozen):
    """The conf of a backend that takes lines over TCP."""

    address: Text = ""


class Zipkin(Frozen):
    """The conf of a collector of Zipkin's spans."""

    url: Text = ""
    trace_id_128bit: Flag = Field(False, alias="traceId128bit")
    api_version: Text = ""
    shared_span_context: Flag | None = None


class Datadog(Frozen):
    """The conf of Datadog's agent. `split_service` has each direction and destination be a service of its own."""

    address: Text = ""
    port: Whole = 0
    split_service: Flag | None = None


class LoggingBackend(Frozen):
    """Where access logs go. Without a format each kind of listener has its own."""

    name: Text = ""
    format: Text = ""
    type: Text = ""
    conf: Loose | None = None


class Logging(Frozen):
    """Backends of TrafficLog."""

    default_backend: Text = ""
    backends: tuple[LoggingBackend, ...] = ()

    def backend(self, name: str) -> LoggingBackend | None:
        """The backend of a name, or the default one where there is no name; None where there is no such backend."""
        return backends.chosen(name or self.default_backend, self.backends)


class TracingBackend(Frozen):
    """Where traces go. `sampling` in percent; None is all."""

    name: Text = ""
    sampling: Annotated[float, Strict()] | None = None
    type: Text = ""
    conf: Loose | None = None


class Tracing(Frozen):
    """Backends of TrafficTrace."""

    default_backend: Text = ""
    backends: tuple[TracingBackend, ...] = ()

    def backend(self, name: str) -> TracingBackend | None:
        """The backend of a name, or the default one where there is no name; None where there is no such backend."""
        return backends.chosen(name or self.default_backend, self.backends)


def check_logging(path: str, logging: Logging) -> Iterator[Violation]:
    """Every rule of logging backends that these break, in the order of Kuma's checks."""
    for i, (backend, is_used) in enumerate(zip(logging.backends, backends.used_before(logging.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from _check_logging_backend(where, backend)
        yield from backends.check_unique(where, backend.name, is_used=is_used)
    message = "has to be set to one of the logging backend in mesh"
    yield from backends.check_chosen(f"{path}.defaultBackend", logging.default_backend, logging.backends, message)


def _check_logging_backend(path: str, backend: LoggingBackend) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    if backend.type == FILE:
        file = yield from _read(f"{path}.config", FileLog, backend.conf)
        if file is not None and not file.path:
            yield Violation(f"{path}.config.path", "cannot be empty")
    elif backend.type == TCP:
        tcp = yield from _read(f"{path}.config", TcpLog, backend.conf)
        if tcp is not None and not tcp.address:
            yield Violation(f"{path}.config.address", "cannot be empty")
        elif tcp is not None and not _HOST_PORT.fullmatch(tcp.address):
            yield Violation(f"{path}.config.address", "has to be in format of HOST:PORT")
    else:
        yield Violation(f"{path}.type", f'{_UNKNOWN_TYPE}"tcp", "file"')


def check_tracing(path: str, tracing: Tracing) -> Iterator[Violation]:
    """Every rule of tracing backends that these break, in the order of Kuma's checks."""
    for i, (backend, is_used) in enumerate(zip(tracing.backends, backends.used_before(tracing.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from _check_tracing_backend(where, backend)
        yield from backends.check_unique(where, backend.name, is_used=is_used)
    message = "has to be set to one of the tracing backend in mesh"
    yield from backends.check_chosen(f"{path}.defaultBackend", tracing.default_backend, tracing.backends, message)


def _check_tracing_backend(path: str, backend: TracingBackend) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    if backend.sampling is not None and not 0.0 <= backend.sampling <= 100.0:
        yield Violation(f"{path}.sampling", "has to be in [0.0 - 100.0] range")
    if backend.type == ZIPKIN:
        yield from _check_zipkin(f"{path}.config", backend.conf)
    elif backend.type == DATADOG:
        yield from _check_datadog(f"{path}.config", backend.conf)
    else:
        yield Violation(f"{path}.type", f'{_UNKNOWN_TYPE}"zipkin", "datadog"')


def _check_zipkin(path: str, conf: Mapping[str, object] | None) -> Iterator[Violation]:
    zipkin = yield from _read(path, Zipkin, conf)
    if zipkin is None:
        return
    if zipkin.api_version and zipkin.api_version not in _ZIPKIN_VERSIONS:
        yield Violation(f"{path}.apiVersion", f"has invalid value. Allowed values: {', '.join(_ZIPKIN_VERSIONS)}")
    if not zipkin.url:
        yield Violation(f"{path}.url", "cannot be empty")
        return
    try:
        parts = urlsplit(zipkin.url)
        port = parts.port
    except ValueError:
        yield Violation(f"{path}.url", "invalid URL")
        return
    if not parts.scheme or not parts.hostname:
        yield Violation(f"{path}.url", "invalid URL")
    elif not port:
        yield Violation(f"{path}.url", "port has to be explicitly specified")


def _check_datadog(path: str, conf: Mapping[str, object] | None) -> Iterator[Violation]:
    datadog = yield from _read(path, Datadog, conf)
    if datadog is None:
        return
    if not datadog.address:
        yield Violation(f"{path}.address", "cannot be empty")
    yield from check_port(f"{path}.port", datadog.port)


_Conf = TypeVar("_Conf", FileLog, TcpLog, Zipkin, Datadog)


def _read(path: str, kind: type[_Conf], conf: Mapping[str, object] | None) -> Generator[Violation, None, _Conf | None]:
    """The conf of a backend of a type; None, and a violation, where it has another shape."""
    try:
        return kind.model_validate(conf or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        yield Violation(path, f"could not parse config: {place}: {first['msg']}")
        return None
