"""What MeshAccessLog changes: requests and connections leave lines in files, at servers, or as records at collectors.

In: a merged conf, and what holds for some clients beside it. Out: effects. Never: a choice between what is said of a
client and of all; each has its lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kumafast.generation import cases, names
from kumafast.generation.access_log import AccessLog, OtelLog
from kumafast.generation.effects import Collector, Effect
from kumafast.resources.otel import address
from kumafast.resources.policies.mesh_access_log import (
    Backend,
    Conf,
    FileBackend,
    Format,
    MeshAccessLog,
    OpenTelemetryBackend,
    TcpBackend,
)
from kumafast.resources.target_ref_policy import Match

KIND = MeshAccessLog.type.name


def outbound(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener of an outbound."""
    return tuple(_logs(conf, None))


def passthrough(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener of what is let through."""
    return outbound(conf, protocol)


def inbound(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener of an inbound."""
    told = ((item["default"], cases.case(item).match) for item in conf.get("cases", ()))
    return (*_logs(conf, None), *(log for default, match in told for log in _logs(default, match)))


def gateway(conf: Mapping[str, Any], protocol: str) -> tuple[Effect, ...]:
    """What changes in the listener of a gateway."""
    return inbound(conf, protocol)


def _logs(conf: Mapping[str, Any], match: Match | None) -> Iterator[Effect]:
    for backend in Conf.model_validate(conf).backends or ():
        log = _log(backend, match)
        if log is not None:
            yield log


def _log(backend: Backend, match: Match | None) -> Effect | None:
    # A backend has the section of its type, and of none other.
    section = {"File": backend.file, "Tcp": backend.tcp, "OpenTelemetry": backend.open_telemetry}[backend.type]
    match section:
        case FileBackend(format=written, path=path):
            text, fields, omits_empty = _said(written)
            return AccessLog(text, path=path, fields=fields, omits_empty=omits_empty, match=match)
        case TcpBackend(format=written, address=to):
            text, fields, omits_empty = _said(written)
            return AccessLog(text, address=to, fields=fields, omits_empty=omits_empty, match=match, is_wrapped=True)
        case OpenTelemetryBackend(endpoint=endpoint, body=body, attributes=attributes):
            where = address(endpoint) if endpoint else None
            if where is None:
                return None
            collector = Collector(names.log_cluster_name(*where), *where, is_http2=True)
            return OtelLog(collector, body, tuple((each.key, each.value) for each in attributes or ()), match)
        case _:
            return None


def _said(written: Format | None) -> tuple[str, tuple[tuple[str, str], ...], bool]:
    """The text of a line, or its fields, and whether what is empty is left out."""
    if written is None:
        return "", (), False
    if written.type == "Plain":
        return written.plain or "", (), written.omit_empty_values
    return "", tuple((field.key, field.value) for field in written.json_fields or ()), written.omit_empty_values
