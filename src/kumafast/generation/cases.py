"""Requests that come in, told apart by who sends them: each case has routes of its own, the first that matches decides.

In: cases, as matching lists them. Out: copies of routes with conditions. Never: what is special about a case; that
stands in the configurations that its routes have for filters.

A client says its tags in a header, which its sidecar writes. Its identity stands in a header that Envoy writes from the
certificate before it looks for a route, and drops where a client sends it. The server name that it asked for is put
where routes can see it when the connection comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from google.protobuf.message import Message

from kumafast.generation import fields, senders
from kumafast.generation.proxy import Tags
from kumafast.resources.target_ref_policy import Match, SpiffeIdMatch

_CERTIFICATE = "x-forwarded-client-cert"
_SERVER_NAME = "kumafast.server_name"
_NOT_IN_A_HOST_NAME = re.compile(r"[^a-z0-9.-]")
_REMEMBER = "envoy.filters.network.set_filter_state"


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of clients that have all of the tags or, where there is a match, that it finds."""

    tags: Tags = ()
    match: Match | None = None

    @property
    def reads_server_name(self) -> bool:
        """Whether the server name has to be remembered."""
        return self.match is not None and self.match.sni is not None


def case(written: Mapping[str, Any]) -> Case:
    """A case as matching has it."""
    match = written.get("match")
    return Case(tuple(written.get("tags", {}).items()), None if match is None else Match.model_validate(match))


def routes_of(
    route: route_components_pb2.Route, told: Iterable[tuple[Case, Mapping[str, Message]]]
) -> list[route_components_pb2.Route]:
    """A copy of a route for each case, with what it has for filters, by their names."""
    copies = []
    for each, configs in told:
        copy = route_components_pb2.Route()
        copy.CopyFrom(route)
        _restrict(copy.match, each)
        for name, config in configs.items():
            copy.typed_per_filter_config[name].Pack(config, deterministic=True)
        copies.append(copy)
    return copies


def _restrict(match: route_components_pb2.RouteMatch, each: Case) -> None:
    if each.tags:
        match.headers.append(senders.is_from([each.tags]))
    if each.match is None:
        return
    if each.match.spiffe_id is not None:
        header = match.headers.add(name=_CERTIFICATE)
        header.safe_regex_match.regex = _identity(each.match.spiffe_id)
    if each.match.sni is not None:
        match.filter_state.add(key=_SERVER_NAME).string_match.exact = _remembered(each.match.sni.value)


def _identity(identity: SpiffeIdMatch) -> str:
    """Which header says that a client has an identity: one of several fields, each of which may be quoted."""
    rest = '[^;,"]*' if identity.type == "Prefix" else ""
    return f'(.*[;,])?URI="?{re.escape(identity.value)}{rest}"?([;,].*)?'


def _remembered(server_name: str) -> str:
    """A server name as Envoy shows it: what no host name has is an underscore, and it says so.

    >>> _remembered("backend{mesh=default}"), _remembered("Backend.example")
    ('invalid:backend_mesh_default_', 'backend.example')
    """
    lower = server_name.lower()
    shown = _NOT_IN_A_HOST_NAME.sub("_", lower)
    return shown if shown == lower and "_" not in shown else f"invalid:{shown}"


def remembering_server_name() -> listener_components_pb2.Filter:
    """The filter that remembers what server name a client asked for."""
    config = set_filter_state_pb2.Config()
    value = config.on_new_connection.add(object_key=_SERVER_NAME, factory_key="envoy.string")
    value.format_string.text_format_source.inline_string = "%REQUESTED_SERVER_NAME%"
    value.read_only = True
    value.skip_if_empty = True
    return listener_components_pb2.Filter(name=_REMEMBER, typed_config=fields.packed(config))
