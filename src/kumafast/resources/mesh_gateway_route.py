"""MeshGatewayRoute: where what comes in by listeners of gateways goes. The form without a targetRef.

In: documents in Kuma's 2.14 form, fields in either spelling that protobuf reads (`status_code`, `statusCode`). Out:
`MeshGatewayRoute`, frozen, and the rules that it breaks. Never: which listeners it is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from kumafast.errors import Violation
from kumafast.resources.connection_policy import Selector, check_sources
from kumafast.resources.fields import Count, Flag, FrozenMap, Loose, Number, Tags, Text
from kumafast.resources.hostnames import check_hostname
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import check_port, check_selector

_EMPTY = "cannot be empty"
_UNSUPPORTED = "field is not implemented"
_PERCENT_MAX = 100.0
_STATUSES = range(300, 309)


class Backend(Frozen):
    """Endpoints with all of the tags, and their share; 0 is none."""

    weight: Count = 0
    destination: Tags = FrozenMap()


class PathMatch(Frozen):
    """A condition on the path; not set is exact."""

    match: Literal["EXACT", "PREFIX", "REGEX"] = "EXACT"
    value: Text = ""


class HeaderMatch(Frozen):
    """A condition on a header; not set is exact."""

    match: Literal["EXACT", "REGEX", "ABSENT", "PRESENT", "PREFIX"] = "EXACT"
    name: Text = ""
    value: Text = ""


class QueryMatch(Frozen):
    """A condition on a parameter of the query; not set is exact."""

    match: Literal["EXACT", "REGEX"] = "EXACT"
    name: Text = ""
    value: Text = ""


class Match(Frozen):
    """Requests that meet all of these conditions."""

    path: PathMatch | None = None
    method: Literal["NONE", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"] = "NONE"
    headers: tuple[HeaderMatch, ...] = ()
    query_parameters: tuple[QueryMatch, ...] = ()


class Header(Frozen):
    """A header and its value."""

    name: Text = ""
    value: Text = ""


class HeaderFilter(Frozen):
    """Headers to replace, to add and to remove."""

    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[Text, ...] = ()


class Mirror(Frozen):
    """A copy of so many requests in a hundred; nobody waits for the answer."""

    backend: Backend | None = None
    percentage: Number | None = None


class Rewrite(Frozen):
    """What a request asks for, said otherwise to the service."""

    replace_full: Text | None = None
    replace_prefix_match: Text | None = None
    host_to_backend_hostname: Flag = False


class PathRedirect(Frozen):
    """The path that the client is sent to."""

    replace_full: Text | None = None
    replace_prefix_match: Text | None = None


class Redirect(Frozen):
    """An answer that sends the client elsewhere."""

    scheme: Text = ""
    hostname: Text = ""
    port: Count = 0
    status_code: Count = 0
    path: PathRedirect | None = None


class Filter(Frozen):
    """What is done with a request that matched: one of these."""

    request_header: HeaderFilter | None = None
    response_header: HeaderFilter | None = None
    mirror: Mirror | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None


class HttpRule(Frozen):
    """What holds for requests that one of the matches finds."""

    matches: tuple[Match, ...] = ()
    filters: tuple[Filter, ...] = ()
    backends: tuple[Backend, ...] = ()


class HttpRoute(Frozen):
    """Rules for requests to some host names, to all of the listener's where there are none."""

    hostnames: tuple[Text, ...] = ()
    rules: tuple[HttpRule, ...] = ()


class TcpRule(Frozen):
    """Where connections go."""

    backends: tuple[Backend, ...] = ()


class TcpRoute(Frozen):
    """Rules for connections; to which of them a connection goes is left to the weights of all."""

    rules: tuple[TcpRule, ...] = ()


class Conf(Frozen):
    """One of these."""

    tcp: TcpRoute | None = None
    http: HttpRoute | None = None
    tls: Loose | None = None
    udp: Loose | None = None


class MeshGatewayRoute(Resource):
    """Says where what comes in by the listeners goes that have the tags of one of its selectors."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshGatewayRoute",
        scope=Scope.MESH,
        path="meshgatewayroutes",
        singular="Mesh Gateway Route",
        plural="Mesh Gateway Routes",
        is_in_federation=True,
        is_called_policy=True,
    )

    selectors: tuple[Selector, ...] = ()
    conf: Conf | None = None

    def violations(self) -> Iterator[Violation]:
        """Every rule of routes that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("selectors", self.selectors)
        conf = self.conf or Conf()
        given = [each for each in (conf.tcp, conf.http, conf.tls, conf.udp) if each is not None]
        if not given:
            yield Violation("conf", _EMPTY)
        elif len(given) > 1:
            yield Violation("conf", "must have exactly one defined: tcp, http")
        for field, section in (("tls", conf.tls), ("udp", conf.udp)):
            if section is not None:
                yield Violation(f"conf.{field}", _UNSUPPORTED)
        if conf.tcp is not None:
            yield from _check_tcp("conf.tcp", conf.tcp)
        if conf.http is not None:
            yield from _check_http("conf.http", conf.http)


def _check_tcp(path: str, route: TcpRoute) -> Iterator[Violation]:
    if not route.rules:
        yield Violation(f"{path}.rules", _EMPTY)
    for i, rule in enumerate(route.rules):
        where = f"{path}.rules[{i}].backends"
        if not rule.backends:
            yield Violation(where, _EMPTY)
        for j, backend in enumerate(rule.backends):
            yield from _check_backend(f"{where}[{j}]", backend)


def _check_http(path: str, route: HttpRoute) -> Iterator[Violation]:
    for i, hostname in enumerate(route.hostnames):
        yield from check_hostname(f"{path}.hostnames[{i}]", hostname)
    if not route.rules:
        yield Violation(f"{path}.rules", _EMPTY)
    for i, rule in enumerate(route.rules):
        yield from _check_rule(f"{path}.rules[{i}]", rule)


def _check_rule(path: str, rule: HttpRule) -> Iterator[Violation]:
    if not rule.matches:
        yield Violation(f"{path}.matches", _EMPTY)
        return
    for i, match in enumerate(rule.matches):
        yield from _check_match(f"{path}.matches[{i}]", match)
    for i, filter_ in enumerate(rule.filters):
        yield from _check_filter(f"{path}.filters[{i}]", filter_, rule)
    redirects = any(each.redirect is not None for each in rule.filters)
    if redirects and any(each.redirect is None and each.response_header is None for each in rule.filters):
        yield Violation(f"{path}.filters", "redirects cannot be used with other filters")
        return
    if redirects and rule.backends:
        yield Violation(f"{path}.backends", "must be empty when using redirect filters")
    elif not redirects and not rule.backends:
        yield Violation(f"{path}.backends", _EMPTY)
    for i, backend in enumerate(rule.backends):
        yield from _check_backend(f"{path}.backends[{i}]", backend)


def _check_match(path: str, match: Match) -> Iterator[Violation]:
    if match == Match():
        yield Violation(path, _EMPTY)
    if match.path is not None:
        if match.path.match == "REGEX":
            if not match.path.value:
                yield Violation(f"{path}.value", _EMPTY)
        elif not match.path.value.startswith("/"):
            yield Violation(f"{path}.value", "must be an absolute path")
    for i, header in enumerate(match.headers):
        where = f"{path}.headers[{i}]"
        if not header.name:
            yield Violation(f"{where}.name", _EMPTY)
        has_value = header.match not in ("ABSENT", "PRESENT")
        if has_value and not header.value:
            yield Violation(f"{where}.value", _EMPTY)
    for i, parameter in enumerate(match.query_parameters):
        where = f"{path}.query_parameters[{i}]"
        if not parameter.name:
            yield Violation(f"{where}.name", _EMPTY)
        if not parameter.value:
            yield Violation(f"{where}.value", _EMPTY)


def _check_filter(path: str, filter_: Filter, rule: HttpRule) -> Iterator[Violation]:
    for field, headers in (("request_header", filter_.request_header), ("response_header", filter_.response_header)):
        if headers is not None:
            yield from _check_headers(f"{path}.{field}", headers)
    if filter_.redirect is not None:
        yield from _check_redirect(f"{path}.redirect", filter_.redirect)
    if filter_.mirror is not None:
        yield from _check_mirror(f"{path}.mirror", filter_.mirror)
    has_only_prefixes = all(match.path is not None and match.path.match == "PREFIX" for match in rule.matches)
    if filter_.rewrite is not None and filter_.rewrite.replace_prefix_match is not None and not has_only_prefixes:
        yield Violation(
            f"{path}.rewrite.replacePrefixMatch", "cannot be used without a match on path prefix in all matches"
        )


def _check_headers(path: str, headers: HeaderFilter) -> Iterator[Violation]:
    if headers == HeaderFilter():
        yield Violation(path, _EMPTY)
    for field, several in (("set", headers.set), ("add", headers.add)):
        for i, header in enumerate(several):
            if not header.name:
                yield Violation(f"{path}.{field}[{i}].name", _EMPTY)
            if not header.value:
                yield Violation(f"{path}.{field}[{i}].value", _EMPTY)
    for i, name in enumerate(headers.remove):
        if not name:
            yield Violation(f"{path}.remove[{i}]", _EMPTY)


def _check_redirect(path: str, redirect: Redirect) -> Iterator[Violation]:
    if not redirect.scheme:
        yield Violation(f"{path}.scheme", _EMPTY)
    if not redirect.hostname:
        yield Violation(f"{path}.hostname", _EMPTY)
    if redirect.port:
        yield from check_port(f"{path}.port", redirect.port)
    if redirect.status_code not in _STATUSES:
        yield Violation(f"{path}.status_code", f"must be in the range [{_STATUSES[0]}, {_STATUSES[-1]}]")


def _check_mirror(path: str, mirror: Mirror) -> Iterator[Violation]:
    if mirror.percentage is None:
        yield Violation(path, _EMPTY)
    elif not 0.0 <= mirror.percentage <= _PERCENT_MAX:
        yield Violation(f"{path}.percentage", "has to be in [0.0 - 100.0] range")
    if mirror.backend is None:
        yield Violation(f"{path}.backend", _EMPTY)
    else:
        yield from _check_backend(f"{path}.backend", mirror.backend)


def _check_backend(path: str, backend: Backend) -> Iterator[Violation]:
    yield from check_selector(path, backend.destination)
    if SERVICE_TAG not in backend.destination:
        yield Violation(path, f'mandatory tag "{SERVICE_TAG}" is missing')
