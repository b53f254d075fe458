"""MeshHTTPRoute: where requests to a service lead, and what is changed in them. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshHTTPRoute`, frozen, and the rules that it breaks.
Never: what Envoy makes of it, or which rule is the first for a request (`matching.http_rules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Final, Literal

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.conf_rules import DecimalNumber, check_percentage
from kumafast.resources.fields import Count, Flag, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.route_refs import ROUTE_TOP_KINDS, BackendRef, check_backend_refs, check_mirror, check_route_to
from kumafast.resources.target_ref import MESH_GATEWAY, check_target_ref
from kumafast.resources.target_ref_policy import OutboundSpec, TargetRefPolicy, To
from kumafast.resources.validation import check_port, is_ip

EXACT: Final = "Exact"
PREFIX: Final = "PathPrefix"
REGEX: Final = "RegularExpression"
PRESENT: Final = "Present"
ABSENT: Final = "Absent"
VALUE_PREFIX: Final = "Prefix"
REQUEST_HEADERS: Final = "RequestHeaderModifier"
RESPONSE_HEADERS: Final = "ResponseHeaderModifier"
REDIRECT: Final = "RequestRedirect"
REWRITE: Final = "URLRewrite"
MIRROR: Final = "RequestMirror"
WHOLE_PATH: Final = "ReplaceFullPath"

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]{1,256}")
_HEADER_NAME_MESSAGE = r"in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'"
_HEADERS_MAX = 16
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_HOST_LENGTH_MAX = 253
# Envoy refuses it, and with it all of the listener.
_EMPTY_REGEX = "must not be empty"


class PathMatch(Frozen):
    """A condition on the path; a prefix counts in whole segments."""

    value: Text = ""
    type: Literal["Exact", "PathPrefix", "RegularExpression"]


class QueryParamMatch(Frozen):
    """A condition on a parameter of the query."""

    type: Literal["Exact", "RegularExpression"]
    name: Text = ""
    value: Text = ""


class HeaderMatch(Frozen):
    """A condition on a header; not set is exact."""

    type: Literal["Exact", "Present", "RegularExpression", "Absent", "Prefix"] | None = None
    name: Text = ""
    value: Text = ""


class Match(Frozen):
    """Requests that meet all of these conditions."""

    path: PathMatch | None = None
    method: Literal["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"] | None = None
    query_params: tuple[QueryParamMatch, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()


class Header(Frozen):
    """A header, and its values with commas between them."""

    name: Text = ""
    value: Text = ""


class HeaderModifier(Frozen):
    """Headers to replace, to append to and to remove."""

    set_: tuple[Header, ...] | None = Field(default=None, alias="set")
    add: tuple[Header, ...] | None = None
    remove: tuple[Text, ...] | None = None


class PathRewrite(Frozen):
    """Another path, or another prefix in place of that which the match names."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Text | None = None
    replace_prefix_match: Text | None = None


class RequestRedirect(Frozen):
    """An answer that sends the client elsewhere; what is not set is as in the request, the status 302."""

    scheme: Literal["http", "https"] | None = None
    hostname: Text | None = None
    path: PathRewrite | None = None
    port: Count | None = None
    status_code: Literal[301, 302, 303, 307, 308] | None = None


class UrlRewrite(Frozen):
    """What a request asks for, said otherwise to the service."""

    hostname: Text | None = None
    path: PathRewrite | None = None
    host_to_backend_hostname: Flag = False


class RequestMirror(Frozen):
    """A copy of so many requests in a hundred, all where it is not said; nobody waits for the answer."""

    percentage: DecimalNumber | None = None
    backend_ref: BackendRef = BackendRef()


class Filter(Frozen):
    """What is done with a request that matched: that of its type."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror"]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: RequestMirror | None = None


class RuleConf(Frozen):
    """What is done with requests, and where they lead: where they would without the rule, if it is not said."""

    filters: tuple[Filter, ...] | None = None
    backend_refs: tuple[BackendRef, ...] | None = None


class RouteRule(Frozen):
    """What holds for requests that one of the matches finds."""

    matches: tuple[Match, ...] = ()
    default: RuleConf = RuleConf()


class Conf(Frozen):
    """The rules of a route. Those of several policies with the same matches are merged."""

    hostnames: tuple[Text, ...] = ()
    rules: tuple[RouteRule, ...] = ()


class RouteTo(To[Conf]):
    """What holds for requests to a destination: rules, in place of the one conf of other kinds."""

    default: ClassVar[None] = None  # type: ignore[misc]
    hostnames: tuple[Text, ...] = ()
    rules: tuple[RouteRule, ...] = ()

    @property
    def conf(self) -> Conf:
        """The rules."""
        return Conf(hostnames=self.hostnames, rules=self.rules)


class RouteSpec(OutboundSpec[Conf]):
    """Whom a route is for, and its rules."""

    to: tuple[RouteTo, ...] = ()


class MeshHTTPRoute(TargetRefPolicy):
    """Says where requests of some proxies to some services lead."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshHTTPRoute",
        scope=Scope.MESH,
        path="meshhttproutes",
        singular="Mesh HTTP Route",
        plural="Mesh HTTP Routes",
        short_name="mhttpr",
        is_in_federation=True,
        policy=PolicyTraits(order=100, is_target_ref=True, has_to=True, is_routing=True),
    )

    spec: RouteSpec = RouteSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of routes that this one breaks, in the order of Kuma's checks."""
        top = self.spec.top
        yield from check_target_ref("spec.targetRef", top, kinds=ROUTE_TOP_KINDS)
        for i, to in enumerate(self.spec.to):
            path = f"spec.to[{i}]"
            yield from check_route_to(f"{path}.targetRef", to.target_ref, top=top.kind)
            for j, rule in enumerate(to.rules):
                yield from _check_rule(f"{path}.rules[{j}]", rule, top=top.kind)
            if to.hostnames and top.kind != MESH_GATEWAY:
                yield Violation(f"{path}.hostnames", "must not be defined")


def _check_rule(path: str, rule: RouteRule, *, top: str) -> Iterator[Violation]:
    if not rule.matches:
        yield Violation(f"{path}.matches", "in body should have at least 1 items")
    for i, match in enumerate(rule.matches):
        yield from _check_match(f"{path}.matches[{i}]", match)
    filters, refs = rule.default.filters or (), rule.default.backend_refs or ()
    has_only_prefixes = all(match.path is not None and match.path.type == PREFIX for match in rule.matches)
    for i, each in enumerate(filters):
        yield from _check_filter(f"{path}.default.filters[{i}]", each, has_only_prefixes=has_only_prefixes, top=top)
    if not refs and top == MESH_GATEWAY and all(each.type != REDIRECT for each in filters):
        yield Violation(f"{path}.default.backendRefs", "must not be empty")
    yield from check_backend_refs(f"{path}.default.backendRefs", refs)


def _check_match(path: str, match: Match) -> Iterator[Violation]:
    if match.path is not None:
        yield from _check_path(f"{path}.path.value", match.path)
    seen: set[str] = set()
    for i, parameter in enumerate(match.query_params):
        if not parameter.name:
            yield Violation(f"{path}.queryParams[{i}].name", "in body should be at least 1 chars long")
        if parameter.name in seen:
            yield Violation(f"{path}.queryParams[{i}].name", f"multiple entries for name {parameter.name}")
        seen.add(parameter.name)
        if parameter.type == REGEX and not parameter.value:
            yield Violation(f"{path}.queryParams[{i}].value", _EMPTY_REGEX)
    for i, header in enumerate(match.headers):
        yield from _check_header_name(f"{path}.headers[{i}].name", header.name)
        if header.type in (PRESENT, ABSENT) and header.value:
            yield Violation(f"{path}.headers[{i}].value", "must not be defined")
        if header.type == REGEX and not header.value:
            yield Violation(f"{path}.headers[{i}].value", _EMPTY_REGEX)


def _check_path(path: str, match: PathMatch) -> Iterator[Violation]:
    if match.type == REGEX:
        if not match.value:
            yield Violation(path, _EMPTY_REGEX)
        return
    if match.type == PREFIX and match.value != "/" and match.value.endswith("/"):
        yield Violation(
            path, "does not need a trailing slash because only a `/`-separated prefix or an entire path is matched"
        )
    if not match.value.startswith("/"):
        yield Violation(path, "must be an absolute path")


def _check_header_name(path: str, name: str) -> Iterator[Violation]:
    if not _HEADER_NAME.fullmatch(name):
        yield Violation(path, _HEADER_NAME_MESSAGE)


def _check_filter(path: str, filter_: Filter, *, has_only_prefixes: bool, top: str) -> Iterator[Violation]:
    for kind, field, modifier in (
        (REQUEST_HEADERS, "requestHeaderModifier", filter_.request_header_modifier),
        (RESPONSE_HEADERS, "responseHeaderModifier", filter_.response_header_modifier),
    ):
        if filter_.type == kind and modifier is None:
            yield Violation(f"{path}.{field}", "must be defined")
        elif filter_.type == kind and modifier is not None:
            yield from _check_modifier(f"{path}.{field}", modifier)
    if filter_.type == REDIRECT:
        if filter_.request_redirect is None:
            yield Violation(f"{path}.requestRedirect", "must be defined")
        else:
            yield from _check_redirect(f"{path}.requestRedirect", filter_.request_redirect, has_only_prefixes)
    elif filter_.type == REWRITE:
        if filter_.url_rewrite is None:
            yield Violation(f"{path}.urlRewrite", "must be defined")
        else:
            yield from _check_rewrite(f"{path}.urlRewrite", filter_.url_rewrite, has_only_prefixes, top=top)
    elif filter_.type == MIRROR:
        if filter_.request_mirror is None:
            yield Violation(f"{path}.requestMirror", "must be defined")
        else:
            yield from check_mirror(f"{path}.requestMirror.backendRef", filter_.request_mirror.backend_ref)
            yield from check_percentage(f"{path}.requestMirror.percentage", filter_.request_mirror.percentage)


def _check_modifier(path: str, modifier: HeaderModifier) -> Iterator[Violation]:
    if modifier.set_ is None and modifier.add is None and modifier.remove is None:
        yield Violation(path, "must have at least one defined: set, add, remove")
    seen: set[str] = set()
    for field, names in (
        ("set", tuple(each.name for each in modifier.set_ or ())),
        ("add", tuple(each.name for each in modifier.add or ())),
        ("remove", modifier.remove or ()),
    ):
        if len(names) > _HEADERS_MAX:
            yield Violation(f"{path}.{field}", f"in body should have at most {_HEADERS_MAX} items")
        for i, name in enumerate(names):
            where = f"{path}.{field}[{i}].name"
            yield from _check_header_name(where, name)
            if name in seen:
                yield Violation(where, "duplicate header name")
            seen.add(name)


def _check_redirect(path: str, redirect: RequestRedirect, has_only_prefixes: bool) -> Iterator[Violation]:
    yield from _check_rewritten_path(f"{path}.path", redirect.path, has_only_prefixes)
    yield from _check_hostname(f"{path}.hostname", redirect.hostname)
    if redirect.port is not None:
        yield from check_port(f"{path}.port", redirect.port)


def _check_rewrite(path: str, rewrite: UrlRewrite, has_only_prefixes: bool, *, top: str) -> Iterator[Violation]:
    yield from _check_rewritten_path(f"{path}.path", rewrite.path, has_only_prefixes)
    yield from _check_hostname(f"{path}.hostname", rewrite.hostname)
    if rewrite.host_to_backend_hostname:
        if top != MESH_GATEWAY:
            yield Violation(f"{path}.hostToBackendHostname", "can only be set with MeshGateway")
        if rewrite.hostname is not None:
            yield Violation(f"{path}.hostToBackendHostname", "cannot be set together with hostname")


def _check_rewritten_path(path: str, rewrite: PathRewrite | None, has_only_prefixes: bool) -> Iterator[Violation]:
    if rewrite is None:
        return
    if rewrite.replace_prefix_match is not None and not has_only_prefixes:
        yield Violation(f"{path}.replacePrefixMatch", "can only appear if all matches match a path prefix")
    if rewrite.type == WHOLE_PATH and rewrite.replace_full_path is None:
        yield Violation(f"{path}.replaceFullPath", "must be defined")
    if rewrite.type != WHOLE_PATH and rewrite.replace_prefix_match is None:
        yield Violation(f"{path}.replacePrefixMatch", "must be defined")


def _check_hostname(path: str, hostname: str | None) -> Iterator[Violation]:
    if hostname is None:
        return
    if is_ip(hostname):
        yield Violation(path, "cannot be an IP address")
        return
    if len(hostname) > _HOST_LENGTH_MAX:
        yield Violation(path, f"must be no more than {_HOST_LENGTH_MAX} characters")
    if not re.fullmatch(_SUBDOMAIN, hostname):
        yield Violation(path, _SUBDOMAIN_MESSAGE)
