"""What Envoy does with a client that shows a certificate, read from its listener: the filters that judge clients.

In: a listener, the URIs of a certificate, a server name. Out: whether a connection, or a request on it, gets through,
and whether the trial run lets it. Never: a form of these filters that is not understood; that is an error.

Envoy's documentation: an RBAC of action ALLOW lets through what one of its policies matches, one of action DENY all
else. A list of matchers acts by the first that matches. UriSanInput gives all URIs as one text, divided by commas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2


@dataclass(frozen=True)
class Verdict:
    is_let: bool
    is_let_on_trial: bool | None
    """None where there is no trial run."""


def judge(listener: listener_pb2.Listener, uris: Sequence[str], server_name: str) -> Verdict:
    """What becomes of a client on the one chain that takes certificates."""
    (chain,) = [each for each in listener.filter_chains if each.HasField("transport_socket")]
    first = chain.filters[0]
    if first.name == "envoy.filters.network.rbac":
        network = network_rbac_pb2.RBAC()
        assert first.typed_config.Unpack(network)
        assert network.stat_prefix.endswith(".")
        return _verdict(network, uris, server_name)
    assert first.name == "envoy.filters.network.http_connection_manager"
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert first.typed_config.Unpack(manager)
    assert manager.http_filters[0].name == "envoy.filters.http.rbac"
    http = http_rbac_pb2.RBAC()
    assert manager.http_filters[0].typed_config.Unpack(http)
    return _verdict(http, uris, server_name)


def _verdict(config: Any, uris: Sequence[str], server_name: str) -> Verdict:
    assert config.HasField("rules") != config.HasField("matcher")
    if config.HasField("rules"):
        assert not config.HasField("shadow_matcher")
        trial = _rules(config.shadow_rules, uris) if config.HasField("shadow_rules") else None
        return Verdict(_rules(config.rules, uris), trial)
    assert not config.HasField("shadow_rules")
    trial = _matcher(config.shadow_matcher, uris, server_name) if config.HasField("shadow_matcher") else None
    return Verdict(_matcher(config.matcher, uris, server_name), trial)


def _rules(rules: rbac_pb2.RBAC, uris: Sequence[str]) -> bool:
    matched = any(
        all(permission.any for permission in policy.permissions)
        and any(_principal(principal, uris) for principal in policy.principals)
        for policy in rules.policies.values()
    )
    return matched if rules.action == rbac_pb2.RBAC.ALLOW else not matched


def _principal(principal: rbac_pb2.Principal, uris: Sequence[str]) -> bool:
    match principal.WhichOneof("identifier"):
        case "any":
            return bool(principal.any)
        case "authenticated":
            return any(_text(principal.authenticated.principal_name, uri) for uri in uris)
        case "and_ids":
            return all(_principal(each, uris) for each in principal.and_ids.ids)
        case "or_ids":
            return any(_principal(each, uris) for each in principal.or_ids.ids)
        case "not_id":
            return not _principal(principal.not_id, uris)
    raise AssertionError(principal)


def _matcher(matcher: Any, uris: Sequence[str], server_name: str) -> bool:
    for each in matcher.matcher_list.matchers:
        if _predicate(each.predicate, uris, server_name):
            return _action(each.on_match)
    return _action(matcher.on_no_match)


def _action(on_match: Any) -> bool:
    action = rbac_pb2.Action()
    assert on_match.action.typed_config.Unpack(action)
    assert action.name
    return bool(action.action == rbac_pb2.RBAC.ALLOW)


def _predicate(predicate: Any, uris: Sequence[str], server_name: str) -> bool:
    match predicate.WhichOneof("match_type"):
        case "single_predicate":
            single = predicate.single_predicate
            given = {"envoy.matching.inputs.uri_san": ",".join(uris), "envoy.matching.inputs.server_name": server_name}
            return _text(single.value_match, given[single.input.name])
        case "and_matcher":
            assert len(predicate.and_matcher.predicate) >= 2
            return all(_predicate(each, uris, server_name) for each in predicate.and_matcher.predicate)
        case "or_matcher":
            assert len(predicate.or_matcher.predicate) >= 2
            return any(_predicate(each, uris, server_name) for each in predicate.or_matcher.predicate)
        case "not_matcher":
            return not _predicate(predicate.not_matcher, uris, server_name)
    raise AssertionError(predicate)


def _text(pattern: Any, text: str) -> bool:
    match pattern.WhichOneof("match_pattern"):
        case "exact":
            return bool(text == pattern.exact)
        case "prefix":
            return bool(text.startswith(pattern.prefix))
        case "safe_regex":
            return re.fullmatch(pattern.safe_regex.regex, text) is not None
    raise AssertionError(pattern)
