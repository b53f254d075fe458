"""Requests of an outbound that its route treats in different ways: which they are, where they lead, what changes.

In: the route of an outbound, and the virtual host that leads all requests to one place. Out: the same host, with a
route for each rule before that for all else. Never: how long a request may take; what holds for all routes of an
outbound is copied from the one that was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from kumafast.generation import http_routes
from kumafast.generation.proxy import HttpRule, Leg, OutboundRoute, RequestRule
from kumafast.resources.policies.traffic_route import Header, Match, Modify, Replacement, TextMatch

_Route: TypeAlias = route_components_pb2.Route


def lead(host: route_components_pb2.VirtualHost, to: OutboundRoute) -> None:
    """Make requests lead where the route says; the host has one route, which matches all."""
    everything = route_components_pb2.Route()
    everything.CopyFrom(host.routes[0])
    del host.routes[:]
    for rule in to.rules:
        host.routes.extend(_ruled(everything, rule))
    if to.legs:
        split(everything.route, to.legs)
        host.routes.append(everything)


def actions(host: route_components_pb2.VirtualHost) -> Iterator[route_components_pb2.RouteAction]:
    """What is done with the requests that are sent on; those that are sent back to the client have no limits."""
    return (route.route for route in host.routes if route.HasField("route"))


def _ruled(everything: _Route, rule: RequestRule | HttpRule) -> Iterator[_Route]:
    route = _Route()
    route.CopyFrom(everything)
    split(route.route, rule.legs)
    if isinstance(rule, HttpRule):
        yield from http_routes.routes(route, rule)
        return
    route.ClearField("name")
    route.match.CopyFrom(_matching(Match.model_validate(rule.match)))
    _modify(route, Modify.model_validate(rule.modify))
    yield route


def split(action: route_components_pb2.RouteAction, legs: tuple[Leg, ...]) -> None:
    """Send requests to clusters, by their shares."""
    if any(leg.is_external for leg in legs):
        # A host of the mesh means nothing out there. A rule may say which one is meant instead.
        action.auto_host_rewrite.value = True
    if len(legs) == 1:
        action.cluster = legs[0].cluster_name
        return
    for leg in legs:
        action.weighted_clusters.clusters.add(name=leg.cluster_name, weight={"value": leg.weight})


def _matching(match: Match) -> route_components_pb2.RouteMatch:
    # Envoy wants a condition on the path in any case.
    found = route_components_pb2.RouteMatch(prefix="/")
    if match.path is not None:
        if match.path.regex is not None:
            found.safe_regex.CopyFrom(_pattern(match.path.regex))
        elif match.path.exact is not None:
            found.path = match.path.exact
        else:
            found.prefix = match.path.prefix or "/"
    for name, condition in (match.headers or {}).items():
        found.headers.add(name=name, string_match=_text(condition))
    if match.method is not None:
        found.headers.add(name=":method", string_match=_text(match.method))
    return found


def _text(condition: TextMatch) -> string_pb2.StringMatcher:
    if condition.regex is not None:
        return string_pb2.StringMatcher(safe_regex=_pattern(condition.regex))
    if condition.prefix is not None:
        return string_pb2.StringMatcher(prefix=condition.prefix)
    return string_pb2.StringMatcher(exact=condition.exact or "")


def _modify(route: route_components_pb2.Route, modify: Modify) -> None:
    action = route.route
    if modify.path is not None and modify.path.regex is not None:
        action.regex_rewrite.CopyFrom(_replacing(modify.path.regex))
    elif modify.path is not None:
        action.prefix_rewrite = modify.path.rewrite_prefix or ""
    if modify.host is not None and modify.host.from_path is not None:
        action.host_rewrite_path_regex.CopyFrom(_replacing(modify.host.from_path))
    elif modify.host is not None:
        action.host_rewrite_literal = modify.host.value or ""
    if modify.request_headers is not None:
        route.request_headers_to_add.extend(_added(modify.request_headers.add))
        route.request_headers_to_remove.extend(each.name for each in modify.request_headers.remove)
    if modify.response_headers is not None:
        route.response_headers_to_add.extend(_added(modify.response_headers.add))
        route.response_headers_to_remove.extend(each.name for each in modify.response_headers.remove)


def _added(headers: Iterable[Header]) -> Iterable[base_pb2.HeaderValueOption]:
    option = base_pb2.HeaderValueOption
    for header in headers:
        action = option.APPEND_IF_EXISTS_OR_ADD if header.append else option.OVERWRITE_IF_EXISTS_OR_ADD
        value = base_pb2.HeaderValue(key=header.name, value=header.value)
        yield option(header=value, append_action=action)


def _pattern(regex: str) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=regex)


def _replacing(replacement: Replacement) -> regex_pb2.RegexMatchAndSubstitute:
    return regex_pb2.RegexMatchAndSubstitute(
        pattern=_pattern(replacement.pattern), substitution=replacement.substitution
    )
