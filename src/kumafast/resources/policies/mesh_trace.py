"""MeshTrace: which proxies report the requests that they handle, and to which collector. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshTrace`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.conf_rules import MUST_BE_DEFINED, MUST_NOT_BE_EMPTY, DecimalNumber, decimal, is_url
from kumafast.resources.fields import Flag, Text
from kumafast.resources.otel import OtelBackend, check_otel_backend
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import PROXIES, check_target_ref
from kumafast.resources.target_ref_policy import ProxySpec, TargetRefPolicy

_URL = "must be a valid url"
_SCHEMES = ("http", "https")
_PORT = "port must be a valid (1-65535)"


class Zipkin(Frozen):
    """A collector of Zipkin's spans."""

    url: Text = ""
    trace_id_128bit: Flag = Field(default=False, alias="traceId128bit")
    api_version: Literal["httpJson", "httpJsonV1", "httpProto"] = "httpJson"
    shared_span_context: Flag | None = None


class Datadog(Frozen):
    """Datadog's agent. `split_service` has each direction and destination be a service of its own."""

    url: Text = ""
    split_service: Flag = False


class Backend(Frozen):
    """Where spans go, in the section of its type."""

    type: Literal["Zipkin", "Datadog", "OpenTelemetry"]
    zipkin: Zipkin | None = None
    datadog: Datadog | None = None
    open_telemetry: OtelBackend | None = None


class Sampling(Frozen):
    """Shares of the requests, in percent: of all, of those whose client asks for it, of the others."""

    overall: DecimalNumber | None = None
    client: DecimalNumber | None = None
    random: DecimalNumber | None = None


class HeaderTag(Frozen):
    """The value of a header, and what stands in its place where there is none."""

    name: Text = ""
    default: Text = ""


class Tag(Frozen):
    """A tag of each span: a text, or the value of a header."""

    name: Text = ""
    literal: Text | None = None
    header: HeaderTag | None = None


class Conf(Frozen):
    """Where spans go, with an empty list nowhere; what share of the requests; what they say beside."""

    backends: tuple[Backend, ...] | None = None
    sampling: Sampling | None = None
    tags: tuple[Tag, ...] | None = None


class MeshTrace(TargetRefPolicy):
    """Traces what proxies send and take, as far as they read requests."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshTrace",
        scope=Scope.MESH,
        path="meshtraces",
        singular="Mesh Trace",
        plural="Mesh Traces",
        short_name="mtr",
        is_in_federation=True,
        policy=PolicyTraits(order=700, is_target_ref=True),
    )

    spec: ProxySpec[Conf] = ProxySpec()

    def remarks(self) -> Iterator[str]:
        """That spans lead nowhere."""
        for backend in (self.spec.default or Conf()).backends or ():
            if backend.open_telemetry is not None and backend.open_telemetry.backend_ref is not None:
                yield "backendRef: MeshOpenTelemetryBackend is not known here, so nothing is traced; name an endpoint"

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh traces that this one breaks, in the order of Kuma's checks."""
        yield from check_target_ref("spec.targetRef", self.spec.top, kinds=PROXIES)
        conf, path = self.spec.default or Conf(), "spec.default"
        if conf.backends is None:
            yield Violation(f"{path}.backends", MUST_BE_DEFINED)
        elif len(conf.backends) > 1:
            yield Violation(f"{path}.backends", "must have zero or one backend defined")
        else:
            for backend in conf.backends:
                yield from _check_backend(f"{path}.backends[0]", backend)
        for i, tag in enumerate(conf.tags or ()):
            if not tag.name:
                yield Violation(f"{path}.tags[{i}].name", MUST_NOT_BE_EMPTY)
            if (tag.header is None) == (tag.literal is None):
                yield Violation(f"{path}.tags[{i}]", "tag must have only one type defined: header, literal")
        sampling = conf.sampling or Sampling()
        for name, share in (("client", sampling.client), ("random", sampling.random), ("overall", sampling.overall)):
            yield from _check_share(f"{path}.sampling.{name}", share)


def _check_share(path: str, share: int | str | None) -> Iterator[Violation]:
    if share is None:
        return
    number = decimal(share)
    if number is None:
        yield Violation(path, "string is not a number")
    elif not 0 <= number <= 100:
        yield Violation(path, "must be between 0 and 100")


def _check_backend(path: str, backend: Backend) -> Iterator[Violation]:
    match backend.type:
        case "Datadog":
            if backend.datadog is None:
                yield Violation(f"{path}.datadog", MUST_BE_DEFINED)
            else:
                yield from _check_datadog(f"{path}.datadog.url", backend.datadog.url)
        case "Zipkin":
            if backend.zipkin is None:
                yield Violation(f"{path}.zipkin", MUST_BE_DEFINED)
            elif not backend.zipkin.url:
                yield Violation(f"{path}.zipkin.url", MUST_NOT_BE_EMPTY)
            elif not is_url(backend.zipkin.url) or collector(backend.zipkin.url) is None:
                yield Violation(f"{path}.zipkin.url", _URL)
        case "OpenTelemetry":
            if backend.open_telemetry is None:
                yield Violation(f"{path}.openTelemetry", MUST_BE_DEFINED)
            else:
                yield from _check_otel(f"{path}.openTelemetry", backend.open_telemetry)


def _check_datadog(path: str, url: str) -> Iterator[Violation]:
    parts = _parts(url)
    if parts is None or not parts.scheme:
        yield Violation(path, _URL)
        return
    if parts.scheme != "http":
        yield Violation(path, "scheme must be http")
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if not port:
        yield Violation(path, "port must be defined")
    elif not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        yield Violation(path, _PORT)
    for name, text in (
        ("user", parts.netloc.rpartition("@")[0]),
        ("path", parts.path),
        ("query", parts.query),
        ("fragment", parts.fragment),
    ):
        if text:
            yield Violation(path, f"{name} must not be defined")


def _check_otel(path: str, backend: OtelBackend) -> Iterator[Violation]:
    if "://" not in backend.endpoint or backend.backend_ref is not None:
        yield from check_otel_backend(path, backend)
        return
    parts = _parts(backend.endpoint)
    if parts is None or not parts.hostname:
        yield Violation(f"{path}.endpoint", "must be a valid URL")
    elif parts.scheme not in _SCHEMES:
        yield Violation(f"{path}.endpoint", "URL scheme must be http or https")
    elif collector(backend.endpoint) is None:
        yield Violation(f"{path}.endpoint", "port must be valid (1-65535)")


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def collector(url: str) -> tuple[str, int] | None:
    """Host and port of a URL, that of its scheme where it has none; None where there is no such host.

    >>> collector("http://jaeger:9411/api/v2/spans"), collector("https://jaeger"), collector("http://a:99999")
    (('jaeger', 9411), ('jaeger', 443), None)
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or port == 0:
        return None
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)
