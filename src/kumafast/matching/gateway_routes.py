"""Routes of built-in gateways: what is attached to a listener, and what all of it comes to.

In: MeshGatewayRoutes, and MeshHTTPRoutes and MeshTCPRoutes that are for a gateway. Out: `GatewayRoute`s, values: equal
where no proxy could tell the difference; the hosts and rules of a listener. Never: a dataplane, or who is attached.

All forms become that of MeshHTTPRoute and MeshTCPRoute, so that a rule of a gateway is a rule of an outbound. Of the
routes of a listener those with a targetRef silence those without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from kumafast._core import TagSelector
from kumafast.matching import http_rules, routing, selection
from kumafast.matching.backend_refs import Destination
from kumafast.matching.merge import merge
from kumafast.matching.policy import Conf
from kumafast.matching.routing import HttpRule, Leg
from kumafast.matching.selection import Weight
from kumafast.resources import MeshGatewayRoute, Resource, ResourceKey
from kumafast.resources import mesh_gateway_route as older
from kumafast.resources.fields import FrozenMap, freeze
from kumafast.resources.hostnames import ANY, breadth, common, contains
from kumafast.resources.mesh_gateway import Listener
from kumafast.resources.policies import mesh_http_route as newer
from kumafast.resources.policies.mesh_http_route import MeshHTTPRoute
from kumafast.resources.policies.mesh_tcp_route import MeshTCPRoute
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import MESH_GATEWAY, MESH_SERVICE, MESH_SERVICE_SUBSET

KINDS = frozenset({MeshGatewayRoute.type.name, MeshHTTPRoute.type.name, MeshTCPRoute.type.name})
"""The kinds of routes that may be for gateways."""

_PATHS = {"EXACT": newer.EXACT, "PREFIX": newer.PREFIX, "REGEX": newer.REGEX}
_TEXTS = {
    "EXACT": newer.EXACT,
    "REGEX": newer.REGEX,
    "ABSENT": newer.ABSENT,
    "PRESENT": newer.PRESENT,
    "PREFIX": newer.VALUE_PREFIX,
}
_SCHEMES = ("http", "https")
# Others mean nothing to Envoy; such a redirect is the usual one.
_STATUSES = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class GatewayRoute:
    """A route for what comes in by the listeners that one of the selectors matches."""

    key: ResourceKey
    selectors: tuple[TagSelector, ...]
    weight: Weight
    """Among routes of a listener in the same family: the heavier counts first."""
    is_target_ref: bool
    is_http: bool
    confs: tuple[tuple[str, Conf], ...]
    """What it says by host name, `*` where it names none: rules of requests, or of connections where they lead."""


@dataclass(frozen=True, slots=True)
class Host:
    """What becomes of requests to a host name: the first rule that they match counts."""

    hostname: str
    rules: tuple[HttpRule, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """A listener with what its routes come to; legs are where its connections go, where these are not read."""

    listener: Listener
    hosts: tuple[Host, ...] = ()
    legs: tuple[Leg, ...] = ()

    @property
    def destinations(self) -> Iterator[Destination]:
        """All that it leads to; some twice."""
        yield from (leg.destination for leg in self.legs)
        for host in self.hosts:
            for rule in host.rules:
                yield from rule.destinations


def compile_route(route: Resource, *, created: datetime) -> GatewayRoute | None:
    """The compiled form of a route for gateways; None for what is none."""
    if isinstance(route, MeshGatewayRoute):
        http = None if route.conf is None else route.conf.http
        return GatewayRoute(
            key=route.key,
            selectors=tuple(TagSelector(dict(selector.match)) for selector in route.selectors),
            weight=(created, selection.descending(route.name)),
            is_target_ref=False,
            is_http=http is not None,
            confs=tuple(_connections(route) if http is None else _requests(http)),
        )
    if not isinstance(route, MeshHTTPRoute | MeshTCPRoute) or route.spec.top.kind != MESH_GATEWAY:
        return None
    return GatewayRoute(
        key=route.key,
        selectors=selection.selectors(route),
        weight=selection.weight(route),
        is_target_ref=True,
        is_http=isinstance(route, MeshHTTPRoute),
        confs=tuple(_said(route)),
    )


def attached(listener: Listener, routes: Iterable[GatewayRoute]) -> Attached:
    """What routes come to for a listener that has their tags."""
    mine = [route for route in routes if route.is_http == listener.is_http]
    if any(route.is_target_ref for route in mine):
        mine = [route for route in mine if route.is_target_ref]
    ordered = sorted(mine, key=_weight)
    if listener.is_http:
        return Attached(listener, hosts=tuple(_hosts(listener.effective_hostname, ordered)))
    if ordered and ordered[0].is_target_ref:
        refs = merge(conf for route in ordered for _, conf in route.confs).get("backendRefs", ())
    else:
        refs = tuple(ref for route in ordered[::-1] for _, conf in route.confs for ref in conf["backendRefs"])
    return Attached(listener, legs=routing.backends(refs))


def _weight(route: GatewayRoute) -> Weight:
    return route.weight


def _hosts(served: str, routes: Sequence[GatewayRoute]) -> Iterator[Host]:
    """The hosts of a listener, the most specific first; what is said of more hosts holds for each of them, after it."""
    by_host: dict[str, list[Conf]] = {}
    for route in routes:
        for hostname, conf in route.confs:
            found = common(served, hostname)
            if found is not None:
                by_host.setdefault(found, []).append(conf)
    said = {hostname: merge(confs).get("rules", ()) for hostname, confs in by_host.items()}
    names = sorted(said, key=breadth)
    for name in names:
        rules = [rule for broader in names if contains(broader, name) for rule in said[broader]]
        ordered: dict[Conf, Conf] = {}
        for match, rule in http_rules.in_order({"rules": rules}):
            # Of those with the same match the first counts, so that others would never be asked.
            ordered.setdefault(cast(Conf, match), cast(Conf, rule))
        yield Host(name, tuple(routing.gateway_rule(match, rule) for match, rule in ordered.items()))


def _said(route: MeshHTTPRoute | MeshTCPRoute) -> Iterator[tuple[str, Conf]]:
    for item in route.spec.to:
        conf = _frozen(item.conf.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        if isinstance(route, MeshTCPRoute):
            yield ANY, conf
            continue
        rules = FrozenMap(rules=conf.get("rules", ()))
        yield from ((hostname, rules) for hostname in dict.fromkeys(conf.get("hostnames", ())) or (ANY,))


# The form without a targetRef in the words of the other.


def _requests(route: older.HttpRoute) -> Iterator[tuple[str, Conf]]:
    conf = _frozen({"rules": [_rule(rule) for rule in route.rules]})
    for hostname in dict.fromkeys(each or ANY for each in route.hostnames) or (ANY,):
        yield hostname, conf


def _connections(route: MeshGatewayRoute) -> Iterator[tuple[str, Conf]]:
    rules = () if route.conf is None or route.conf.tcp is None else route.conf.tcp.rules
    yield ANY, _frozen({"backendRefs": _shares([backend for rule in rules for backend in rule.backends])})


def _rule(rule: older.HttpRule) -> dict[str, Any]:
    filters = [found for each in rule.filters for found in _filters(each)]
    return {
        "matches": [_match(match) for match in rule.matches],
        "default": {"filters": filters, "backendRefs": _shares(rule.backends)},
    }


def _shares(backends: Sequence[older.Backend]) -> list[dict[str, Any]]:
    # Protobuf cannot tell a weight of 0 from none. Where nobody has one, all have the same.
    is_said = any(backend.weight for backend in backends)
    return [_backend(backend, weight=backend.weight if is_said else 1) for backend in backends]


def _backend(backend: older.Backend, **more: Any) -> dict[str, Any]:
    tags = {key: value for key, value in backend.destination.items() if key != SERVICE_TAG}
    kind = {"kind": MESH_SERVICE_SUBSET, "tags": tags} if tags else {"kind": MESH_SERVICE}
    return {**kind, "name": backend.destination.get(SERVICE_TAG, ""), **more}


def _match(match: older.Match) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if match.path is not None:
        value = match.path.value
        if match.path.match == "PREFIX":
            value = value.rstrip("/") or "/"
        found["path"] = {"type": _PATHS[match.path.match], "value": value}
    if match.method != "NONE":
        found["method"] = match.method
    for field, conditions in (("headers", match.headers), ("queryParams", match.query_parameters)):
        if conditions:
            found[field] = [
                {"type": _TEXTS[each.match], "name": _name(field, each.name), "value": each.value}
                for each in conditions
            ]
    return found


def _name(field: str, name: str) -> str:
    # Envoy compares names of headers as they come in HTTP/2.
    return name.lower() if field == "headers" else name


def _filters(written: older.Filter) -> Iterator[dict[str, Any]]:
    for kind, field, headers in (
        (newer.REQUEST_HEADERS, "requestHeaderModifier", written.request_header),
        (newer.RESPONSE_HEADERS, "responseHeaderModifier", written.response_header),
    ):
        if headers is not None:
            modifier = headers.model_dump(mode="json", exclude_defaults=True)
            yield {"type": kind, field: modifier}
    if written.mirror is not None and written.mirror.backend is not None:
        mirror = {"backendRef": _backend(written.mirror.backend), "percentage": str(written.mirror.percentage or 0)}
        yield {"type": newer.MIRROR, "requestMirror": mirror}
    if written.redirect is not None:
        yield {"type": newer.REDIRECT, "requestRedirect": _redirect(written.redirect)}
    if written.rewrite is not None:
        yield {"type": newer.REWRITE, "urlRewrite": _rewrite(written.rewrite)}


def _redirect(redirect: older.Redirect) -> dict[str, Any]:
    return {
        "hostname": redirect.hostname,
        **({"scheme": redirect.scheme.lower()} if redirect.scheme.lower() in _SCHEMES else {}),
        **({"port": redirect.port} if redirect.port else {}),
        **({"statusCode": redirect.status_code} if redirect.status_code in _STATUSES else {}),
        **({} if redirect.path is None else {"path": _path(redirect.path)}),
    }


def _rewrite(rewrite: older.Rewrite) -> dict[str, Any]:
    has_path = rewrite.replace_full is not None or rewrite.replace_prefix_match is not None
    return {
        **({"path": _path(rewrite)} if has_path else {}),
        **({"hostToBackendHostname": True} if rewrite.host_to_backend_hostname else {}),
    }


def _path(path: older.Rewrite | older.PathRedirect) -> dict[str, Any]:
    if path.replace_full is not None:
        return {"type": newer.WHOLE_PATH, "replaceFullPath": path.replace_full}
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": path.replace_prefix_match or "/"}


def _frozen(conf: Mapping[str, Any]) -> Conf:
    return cast(Conf, freeze(conf))
