"""Access logs: a line for each connection or request that goes through a listener.

In: where lines go and what they say. Out: the effect that adds the log. Never: a file that is opened here; Envoy does.
Source of formats, placeholders and the way of lines to a TCP server: Kuma 2.14.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from kumafast.generation import fields
from kumafast.generation.effects import Call, Config, Effect

_LOGGER = "envoy.access_loggers.file"

_CONNECTION = (
    "[%START_TIME%] %RESPONSE_FLAGS% %KUMA_MESH% %KUMA_SOURCE_ADDRESS_WITHOUT_PORT%(%KUMA_SOURCE_SERVICE%)->"
    "%UPSTREAM_HOST%(%KUMA_DESTINATION_SERVICE%) took %DURATION%ms, sent %BYTES_SENT% bytes, "
    "received: %BYTES_RECEIVED% bytes"
)
_REQUEST = (
    '[%START_TIME%] %KUMA_MESH% "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-B3-TRACEID?X-DATADOG-TRACEID)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%KUMA_SOURCE_SERVICE%" "%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" '
    '"%UPSTREAM_HOST%"'
)
_OF_THE_SOURCE = ("%KUMA_MESH%", "%KUMA_SOURCE_")


@dataclass(frozen=True, slots=True)
class AccessLog(Effect):
    """Lines in a file, or through the pipe of the proxy's launcher to a TCP server. Without a format it is Kuma's."""

    format: str = ""
    path: str = ""
    address: str = ""
    """Of the TCP server; nothing where lines go to a file."""

    @property
    def needs_source(self) -> bool:
        """Where the pipe is, or what a line says of the proxy, belongs to the proxy."""
        return bool(self.address or not self.format or any(each in self.format for each in _OF_THE_SOURCE))

    @property
    def needs_pipe(self) -> bool:
        """Lines for a server go there."""
        return bool(self.address)

    def watch(self, config: Config, call: Call) -> None:
        """Add the log; a proxy whose launcher takes no lines has none that goes to a server."""
        is_http = isinstance(config, http_connection_manager_pb2.HttpConnectionManager)
        line = _filled_in(self.format or (_REQUEST if is_http else _CONNECTION), call) + "\n"
        path = self.path
        if self.address:
            path = "" if call.source is None else call.source.log_pipe
            line = f"{self.address};{line}"
        if not path:
            return
        text = substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=line)
        )
        file = file_pb2.FileAccessLog(path=path, log_format=text)
        config.access_log.append(accesslog_pb2.AccessLog(name=_LOGGER, typed_config=fields.packed(file)))


def _filled_in(text: str, call: Call) -> str:
    """A format with Kuma's placeholders replaced; Envoy's own are left to it."""
    for placeholder, value in _values(call).items():
        text = text.replace(f"%{placeholder}%", value)
    return text


def _values(call: Call) -> Mapping[str, str]:
    known = {"KUMA_DESTINATION_SERVICE": call.destination, "KUMA_TRAFFIC_DIRECTION": call.direction}
    source = call.source
    if source is None:
        return known
    host = f"[{source.address}]" if ":" in source.address else source.address
    return {
        **known,
        "KUMA_MESH": source.mesh,
        "KUMA_SOURCE_SERVICE": source.service,
        "KUMA_SOURCE_ADDRESS": f"{host}:0",
        "KUMA_SOURCE_ADDRESS_WITHOUT_PORT": source.address,
    }
