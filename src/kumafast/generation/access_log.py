"""Access logs: a line, or a record, for each connection or request that goes through a listener.

In: where lines go and what they say. Out: the effects that add the log. Never: a file that is opened here; Envoy does.
Source of formats, placeholders and the way of lines to a TCP server: Kuma 2.14.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import orjson
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from kumafast.generation import fields
from kumafast.generation.effects import Call, Collector, Config, Effect
from kumafast.resources.fields import thaw
from kumafast.resources.target_ref_policy import Match

_Format: TypeAlias = substitution_format_string_pb2.SubstitutionFormatString

_LOGGER = "envoy.access_loggers.file"
_OTEL_LOGGER = "envoy.access_loggers.open_telemetry"
_OTEL_NAME = "MeshAccessLog"
_EXPRESSION_FILTER = "envoy.access_loggers.extension_filters.cel"

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
    fields: tuple[tuple[str, str], ...] = ()
    """Of a line that is a JSON object, in place of a format."""
    is_wrapped: bool = False
    """True where the launcher takes objects with an address and a message, not lines that begin with the address."""
    omits_empty: bool = False
    match: Match | None = None
    """Which requests or connections leave a line; all where it is not set."""

    @property
    def needs_source(self) -> bool:
        """Where the pipe is, or what a line says of the proxy, belongs to the proxy."""
        said = (self.format, *(value for _, value in self.fields))
        return bool(self.address or not any(said) or _is_of_the_source(said))

    @property
    def needs_pipe(self) -> bool:
        """Lines for a server go there."""
        return bool(self.address)

    def watch(self, config: Config, call: Call) -> None:
        """Add the log; a proxy whose launcher takes no lines has none that goes to a server."""
        path = self.path
        if self.address:
            path = "" if call.source is None else call.source.log_pipe
        if path:
            file = file_pb2.FileAccessLog(path=path, log_format=self._format(config, call))
            _add(config, _LOGGER, file, self.match)

    def _format(self, config: Config, call: Call) -> _Format:
        found = _Format(omit_empty_values=self.omits_empty)
        if self.fields:
            fields = {key: filled_in(value, call) for key, value in self.fields}
            said = {"address": self.address, "message": fields} if self.is_wrapped else fields
            found.json_format.update(said)
            return found
        line = filled_in(self.format or default_format(config), call) + "\n"
        if self.is_wrapped:
            found.json_format.update({"address": self.address, "message": line})
        else:
            found.text_format_source.inline_string = f"{self.address};{line}" if self.address else line
        return found


@dataclass(frozen=True, slots=True)
class OtelLog(Effect):
    """Records of OpenTelemetry. Without a body it is a line of Kuma's format."""

    collector: Collector
    body: Any = None
    attributes: tuple[tuple[str, str], ...] = ()
    match: Match | None = None

    @property
    def needs_source(self) -> bool:
        """What a record says of the proxy belongs to the proxy."""
        return self.body is None or _is_of_the_source([str(self.body), *(value for _, value in self.attributes)])

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """Where records go."""
        return (self.collector,)

    def watch(self, config: Config, call: Call) -> None:
        """Add the log."""
        otel = logs_service_pb2.OpenTelemetryAccessLogConfig()
        otel.common_config.log_name = _OTEL_NAME
        otel.common_config.transport_api_version = config_source_pb2.ApiVersion.V3
        otel.common_config.grpc_service.envoy_grpc.cluster_name = self.collector.cluster_name
        _fill_body(otel.body, default_format(config) if self.body is None else self.body, call)
        for key, text in self.attributes:
            otel.attributes.values.add(key=key).value.string_value = filled_in(text, call)
        _add(config, _OTEL_LOGGER, otel, self.match)


def _fill_body(value: Message, body: object, call: Call) -> None:
    """A body as OTLP has it; what is no OTLP value is a text."""
    if isinstance(body, Mapping):
        try:
            json_format.ParseDict(cast(dict[str, Any], thaw(body)), value)
        except json_format.ParseError:
            value.Clear()
        else:
            _fill_in(value, call)
            return
    text = body if isinstance(body, str) else orjson.dumps(thaw(body)).decode()
    json_format.ParseDict({"stringValue": filled_in(text, call)}, value)


def _fill_in(value: Any, call: Call) -> None:
    match value.WhichOneof("value"):
        case "string_value":
            value.string_value = filled_in(value.string_value, call)
        case "array_value":
            for each in value.array_value.values:
                _fill_in(each, call)
        case "kvlist_value":
            for pair in value.kvlist_value.values:
                pair.key = filled_in(pair.key, call)
                _fill_in(pair.value, call)
        case other:
            # Envoy refuses the listener where a value is no text.
            value.string_value = "" if other is None else str(getattr(value, other))


def _add(config: Config, name: str, logger: Message, match: Match | None) -> None:
    log = accesslog_pb2.AccessLog(name=name, typed_config=fields.packed(logger))
    if match is not None:
        expression = cel_pb2.ExpressionFilter(expression=_expression(match))
        log.filter.extension_filter.name = _EXPRESSION_FILTER
        log.filter.extension_filter.typed_config.CopyFrom(fields.packed(expression))
    config.access_log.append(log)


def _expression(match: Match) -> str:
    """Which connections a match finds, in the language that filters of logs have."""
    conditions = []
    if match.spiffe_id is not None:
        literal = _literal(match.spiffe_id.value)
        uri = "connection.uri_san_peer_certificate"
        conditions.append(f"{uri}.startsWith({literal})" if match.spiffe_id.type == "Prefix" else f"{uri} == {literal}")
    if match.sni is not None:
        conditions.append(f"connection.requested_server_name == {_literal(match.sni.value.lower())}")
    return " && ".join(conditions) or "true"


def _literal(text: str) -> str:
    # A JSON text is one of this language as well.
    return orjson.dumps(text).decode()


def default_format(config: Config) -> str:
    """Kuma's format of a line."""
    return _REQUEST if isinstance(config, http_connection_manager_pb2.HttpConnectionManager) else _CONNECTION


def _is_of_the_source(texts: Iterable[str]) -> bool:
    return any(each in text for text in texts for each in _OF_THE_SOURCE)


def filled_in(text: str, call: Call) -> str:
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
