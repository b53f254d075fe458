"""What TrafficLog changes: connections that go out, and what is let through, leave lines in the backend's log.

In: the backend of the one policy that applies. Out: an effect. Never: a log of what comes in; that is the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumafast.generation.access_log import AccessLog
from kumafast.generation.effects import Effect
from kumafast.resources.policies.traffic_log import Log, TrafficLog
from kumafast.resources.telemetry import TCP, FileLog, TcpLog

KIND = TrafficLog.type.name


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    backend = Log.model_validate(conf).backend
    if backend is None:
        return None
    if backend.type == TCP:
        return AccessLog(backend.format, address=TcpLog.model_validate(backend.conf or {}).address)
    return AccessLog(backend.format, path=FileLog.model_validate(backend.conf or {}).path)


def passthrough(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of what is let through."""
    return outbound(conf, protocol)
