"""Requests of an outbound as its MeshHTTPRoutes rule them: which they are, where they lead, what changes.

In: a rule, and the route for all requests of its outbound. Out: the routes that stand for the rule.
Never: the order of rules, or how long a request may take; what holds for all requests is copied from the route given.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from kumafast.generation import fields
from kumafast.generation.proxy import HttpRule
from kumafast.resources.conf_rules import decimal
from kumafast.resources.policies.mesh_http_route import (
    ABSENT,
    EXACT,
    MIRROR,
    PREFIX,
    PRESENT,
    REDIRECT,
    REGEX,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    REWRITE,
    VALUE_PREFIX,
    WHOLE_PATH,
    Filter,
    HeaderMatch,
    HeaderModifier,
    Match,
    PathMatch,
    PathRewrite,
    QueryParamMatch,
    RequestMirror,
    RequestRedirect,
    UrlRewrite,
)

_Route: TypeAlias = route_components_pb2.Route
_Match: TypeAlias = route_components_pb2.RouteMatch
_Redirect: TypeAlias = route_components_pb2.RedirectAction
_ROOT = PathMatch(type=PREFIX, value="/")
_STATUS_CODES = {
    None: _Redirect.FOUND,
    301: _Redirect.MOVED_PERMANENTLY,
    302: _Redirect.FOUND,
    303: _Redirect.SEE_OTHER,
    307: _Redirect.TEMPORARY_REDIRECT,
    308: _Redirect.PERMANENT_REDIRECT,
}
_ANY_PATH = ".*"


def matches_name(matches: Iterable[Match]) -> str:
    """What a route is called: the digest of the JSON of the matches of its rule, as Kuma writes that.

    >>> matches_name([Match(path=PathMatch(type="PathPrefix", value="/"))])
    '9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo='
    """
    text = json.dumps([_written(match) for match in matches], separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return b64encode(sha256(text.encode()).digest()).decode()


def rule_name(rule: HttpRule) -> str:
    """What the routes of a rule are called."""
    return matches_name(Match.model_validate(each) for each in rule.matches)


def _written(match: Match) -> dict[str, Any]:
    document: dict[str, Any] = match.model_dump(by_alias=True, exclude_defaults=True)
    if match.query_params:
        # The one field that is written although it is empty.
        document["queryParams"] = [each.model_dump(by_alias=True) for each in match.query_params]
    return document


def routes(everything: _Route, rule: HttpRule) -> Iterator[_Route]:
    """The routes of a rule that leads somewhere already: two where a prefix has to end with a segment."""
    match = Match.model_validate(rule.match)
    filters = [Filter.model_validate(each) for each in rule.filters]
    for condition in _path_matches(match.path or _ROOT):
        route = _Route()
        route.CopyFrom(everything)
        route.name = rule_name(rule)
        _add_conditions(condition, match)
        route.match.CopyFrom(condition)
        _filter(route, filters, rule.mirrors)
        yield route


def _path_matches(path: PathMatch) -> Iterator[_Match]:
    if path.type == EXACT:
        yield _Match(path=path.value)
    elif path.type == REGEX:
        yield _Match(safe_regex=_pattern(path.value))
    elif path.value == "/":
        yield _Match(prefix="/")
    else:
        # /a is no prefix of /ab.
        yield _Match(path=path.value)
        yield _Match(prefix=f"{path.value}/")


def _add_conditions(condition: _Match, match: Match) -> None:
    if match.method is not None:
        condition.headers.add(name=":method", string_match=string_pb2.StringMatcher(exact=match.method))
    for parameter in _first_of_each_name(match.query_params):
        condition.query_parameters.add(name=parameter.name, string_match=_text(parameter))
    for header in _first_of_each_name(match.headers):
        found = condition.headers.add(name=header.name)
        if header.type == ABSENT:
            found.present_match = False
        elif header.type == PRESENT or (header.type == VALUE_PREFIX and not header.value):
            found.present_match = True
        else:
            found.string_match.CopyFrom(_text(header))


def _first_of_each_name(conditions: Iterable[Any]) -> Iterable[Any]:
    found: dict[str, Any] = {}
    for condition in conditions:
        found.setdefault(condition.name, condition)
    return found.values()


def _text(condition: HeaderMatch | QueryParamMatch) -> string_pb2.StringMatcher:
    if condition.type == REGEX:
        return string_pb2.StringMatcher(safe_regex=_pattern(condition.value))
    if condition.type == VALUE_PREFIX:
        return string_pb2.StringMatcher(prefix=condition.value)
    return string_pb2.StringMatcher(exact=condition.value)


def _filter(route: _Route, filters: Iterable[Filter], mirrors: Iterable[str]) -> None:
    targets = iter(mirrors)
    for each in filters:
        if each.type == REQUEST_HEADERS and each.request_header_modifier is not None:
            added, removed = _headers(each.request_header_modifier)
            route.request_headers_to_add.extend(added)
            route.request_headers_to_remove.extend(removed)
        elif each.type == RESPONSE_HEADERS and each.response_header_modifier is not None:
            added, removed = _headers(each.response_header_modifier)
            route.response_headers_to_add.extend(added)
            route.response_headers_to_remove.extend(removed)
        elif each.type == REDIRECT and each.request_redirect is not None:
            route.redirect.CopyFrom(_redirect(each.request_redirect, route.match))
        elif each.type == REWRITE and each.url_rewrite is not None:
            _rewrite(route, each.url_rewrite)
        elif each.type == MIRROR and each.request_mirror is not None:
            _mirror(route, each.request_mirror, next(targets))


def _headers(modifier: HeaderModifier) -> tuple[list[base_pb2.HeaderValueOption], tuple[str, ...]]:
    added = [
        fields.header(header.name, value, is_appended=number > 0)
        for header in modifier.set_ or ()
        for number, value in enumerate(header.value.split(","))
    ]
    added += [
        fields.header(header.name, value, is_appended=True)
        for header in modifier.add or ()
        for value in header.value.split(",")
    ]
    return added, modifier.remove or ()


def _redirect(redirect: RequestRedirect, match: _Match) -> _Redirect:
    action = _Redirect(
        host_redirect=redirect.hostname or "",
        port_redirect=redirect.port or 0,
        response_code=_STATUS_CODES[redirect.status_code],
    )
    if redirect.scheme is not None:
        action.scheme_redirect = redirect.scheme
    _rewrite_path(action, redirect.path, match)
    return action


def _rewrite(route: _Route, rewrite: UrlRewrite) -> None:
    if not route.HasField("route"):
        # A redirect is answered by the sidecar: nobody sees the request.
        return
    if rewrite.hostname is not None:
        route.route.host_rewrite_literal = rewrite.hostname
    elif rewrite.host_to_backend_hostname:
        route.route.auto_host_rewrite.value = True
    _rewrite_path(route.route, rewrite.path, route.match)


def _rewrite_path(
    action: _Redirect | route_components_pb2.RouteAction, rewrite: PathRewrite | None, match: _Match
) -> None:
    if rewrite is None:
        return
    if rewrite.type == WHOLE_PATH:
        _replace_all(action, rewrite.replace_full_path or "/")
    elif match.HasField("path"):
        _replace_all(action, rewrite.replace_prefix_match or "/")
    elif match.HasField("prefix"):
        # The match ends with a slash, so what takes its place does too: otherwise /a/b would become /xb.
        action.prefix_rewrite = f"{(rewrite.replace_prefix_match or '').rstrip('/')}/"


def _replace_all(action: _Redirect | route_components_pb2.RouteAction, path: str) -> None:
    action.regex_rewrite.CopyFrom(
        regex_pb2.RegexMatchAndSubstitute(pattern=_pattern(_ANY_PATH), substitution=path.replace("\\", "\\\\"))
    )


def _mirror(route: _Route, mirror: RequestMirror, cluster: str) -> None:
    if not cluster or not route.HasField("route"):
        return
    policy = route.route.request_mirror_policies.add(cluster=cluster)
    share = None if mirror.percentage is None else decimal(mirror.percentage)
    if share is not None:
        policy.runtime_fraction.default_value.CopyFrom(fields.fraction(float(share)))


def _pattern(regex: str) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=regex)
