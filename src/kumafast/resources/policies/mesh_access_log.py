"""MeshAccessLog: which requests and connections leave a line, and where. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshAccessLog`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainSerializer

from kumafast.errors import Violation
from kumafast.resources.conf_rules import MUST_BE_DEFINED, MUST_NOT_BE_EMPTY, is_file_path, is_url
from kumafast.resources.fields import Flag, Text, freeze, thaw
from kumafast.resources.otel import OtelBackend, check_otel_backend
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import MESH, MESH_HTTP_ROUTE, PROXIES, SERVICES, check_target_ref
from kumafast.resources.target_ref_policy import Spec, TargetRefPolicy, check_match, check_parts

_TO_KINDS = (MESH, *SERVICES, MESH_HTTP_ROUTE)
_ATTRIBUTE = re.compile(r"[a-z]([a-z0-9]|[._][a-z0-9])*")
_ATTRIBUTE_MESSAGE = (
    "must start with a lowercase letter, use only lowercase letters, digits, '.' or '_', avoid consecutive delimiters, "
    "and end with a letter or digit"
)

JsonValue = Annotated[Any, AfterValidator(freeze), PlainSerializer(thaw)]
"""Any JSON, read-only."""


class JsonField(Frozen):
    """A field of a line that is a JSON object."""

    key: Text = ""
    value: Text = ""


class Format(Frozen):
    """What a line says: a text, or an object."""

    type: Literal["Plain", "Json"]
    plain: Text | None = None
    # `json` is a method of what this extends.
    json_fields: tuple[JsonField, ...] | None = Field(default=None, alias="json")
    omit_empty_values: Flag = False


class TcpBackend(Frozen):
    """A server that takes lines."""

    format: Format | None = None
    address: Text = ""


class FileBackend(Frozen):
    """A file on the host of each proxy."""

    format: Format | None = None
    path: Text = ""


class Attribute(Frozen):
    """A field beside the body."""

    key: Text = ""
    value: Text = ""


class OpenTelemetryBackend(OtelBackend):
    """A collector that takes records of OpenTelemetry. `body` is a text, or an OTLP value."""

    attributes: tuple[Attribute, ...] | None = None
    body: JsonValue = None


class Backend(Frozen):
    """Where lines go, in the section of its type."""

    type: Literal["Tcp", "File", "OpenTelemetry"]
    tcp: TcpBackend | None = None
    file: FileBackend | None = None
    open_telemetry: OpenTelemetryBackend | None = None


class Conf(Frozen):
    """Where lines go; with an empty list nowhere, whatever policies of less weight say."""

    backends: tuple[Backend, ...] | None = None


class MeshAccessLog(TargetRefPolicy):
    """Logs what proxies send and take."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshAccessLog",
        scope=Scope.MESH,
        path="meshaccesslogs",
        singular="Mesh Access Log",
        plural="Mesh Access Logs",
        short_name="mal",
        is_in_federation=True,
        policy=PolicyTraits(
            order=600,
            is_target_ref=True,
            has_to=True,
            has_from=True,
            has_rules=True,
            is_from_as_rules=True,
            has_cases=True,
        ),
    )

    spec: Spec[Conf] = Spec()

    def remarks(self) -> Iterator[str]:
        """That lines need help on their way, or lead nowhere."""
        if any(item.target_ref.kind == MESH_HTTP_ROUTE for item in self.spec.to):
            yield "spec.to: requests of single routes are not logged apart; name the service whose requests are to be"
        for backend in self._backends():
            if backend.type == "Tcp" and backend.tcp is not None:
                yield (
                    f"{backend.tcp.address}: Envoy by itself does not write to TCP; lines are sent by kuma-dp, and "
                    "proxies without it log nothing"
                )
            if backend.open_telemetry is not None and backend.open_telemetry.backend_ref is not None:
                yield "backendRef: MeshOpenTelemetryBackend is not known here, so nothing is logged; name an endpoint"

    def _backends(self) -> Iterator[Backend]:
        said = (item.default for items in (self.spec.to, self.spec.from_, self.spec.rules) for item in items)
        for conf in said:
            yield from (conf or Conf()).backends or ()

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh access logs that this one breaks, in the order of Kuma's checks."""
        spec = self.spec
        yield from check_target_ref("spec.targetRef", spec.top, kinds=PROXIES, is_inbound=spec.is_inbound)
        yield from check_parts(spec)
        for i, destination in enumerate(spec.to):
            yield from check_target_ref(f"spec.to[{i}].targetRef", destination.target_ref, kinds=_TO_KINDS)
            yield from _check_conf(f"spec.to[{i}].default", destination.default or Conf())
        for i, source in enumerate(spec.from_):
            yield from check_target_ref(f"spec.from[{i}].targetRef", source.target_ref, kinds=(MESH,))
            yield from _check_conf(f"spec.from[{i}].default", source.default or Conf())
        for i, rule in enumerate(spec.rules):
            for j, match in enumerate(rule.matches):
                yield from check_match(f"spec.rules[{i}].matches[{j}]", match)
            yield from _check_conf(f"spec.rules[{i}].default", rule.default or Conf())


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    if conf.backends is None:
        yield Violation(f"{path}.backends", MUST_BE_DEFINED)
    for i, backend in enumerate(conf.backends or ()):
        yield from _check_backend(f"{path}.backends[{i}]", backend)


def _check_backend(path: str, backend: Backend) -> Iterator[Violation]:
    match backend.type:
        case "File":
            if backend.file is None:
                yield Violation(f"{path}.file", MUST_BE_DEFINED)
                return
            yield from _check_format(f"{path}.file.format", backend.file.format)
            if not is_file_path(backend.file.path):
                yield Violation(f"{path}.file.path", "file backend requires a valid path")
        case "Tcp":
            if backend.tcp is None:
                yield Violation(f"{path}.tcp", MUST_BE_DEFINED)
                return
            yield from _check_format(f"{path}.tcp.format", backend.tcp.format)
            if not is_url(backend.tcp.address):
                yield Violation(f"{path}.tcp.address", "tcp backend requires valid address")
        case "OpenTelemetry":
            if backend.open_telemetry is None:
                yield Violation(f"{path}.openTelemetry", MUST_BE_DEFINED)
                return
            yield from check_otel_backend(f"{path}.openTelemetry", backend.open_telemetry)
            for i, attribute in enumerate(backend.open_telemetry.attributes or ()):
                yield from _check_attribute(f"{path}.openTelemetry.attributes[{i}].key", attribute.key)


def _check_attribute(path: str, key: str) -> Iterator[Violation]:
    if not key:
        yield Violation(path, MUST_BE_DEFINED)
    elif "%" in key:
        message = "must be a static OpenTelemetry attribute name; placeholders are only supported in values"
        yield Violation(path, message)
    elif key.startswith("otel."):
        yield Violation(path, "must not use the reserved OpenTelemetry prefix 'otel.'")
    elif not _ATTRIBUTE.fullmatch(key):
        yield Violation(path, _ATTRIBUTE_MESSAGE)


def _check_format(path: str, written: Format | None) -> Iterator[Violation]:
    if written is None:
        return
    if written.type == "Plain":
        if written.plain is None:
            yield Violation(f"{path}.plain", MUST_BE_DEFINED)
        elif not written.plain:
            yield Violation(f"{path}.plain", MUST_NOT_BE_EMPTY)
        return
    if written.json_fields is None:
        yield Violation(f"{path}.json", MUST_BE_DEFINED)
    elif not written.json_fields:
        yield Violation(f"{path}.json", MUST_NOT_BE_EMPTY)
    for i, field in enumerate(written.json_fields or ()):
        if not field.key:
            yield Violation(f"{path}.json[{i}].key", "key cannot be empty")
        if not field.value:
            yield Violation(f"{path}.json[{i}].value", "value cannot be empty")
        if not _is_json(f'{{"{field.key}": "{field.value}"}}'):
            yield Violation(f"{path}.json[{i}]", "is not a valid JSON object")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
