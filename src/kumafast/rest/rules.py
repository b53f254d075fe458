"""`…/dataplanes/{name}/_rules`: what all policies with a targetRef come to for one proxy.

In: a proxy. Out: Kuma's document of rules by kind. Never: a table of all combinations of tags: rules stand in an order
in which the first that matches a client, or a service, decides, and there are at most as many as policies have items.

What a kind comes to is asked of the functions that configure the proxy. Where another kind is heard in its place, as
`Timeout` of a user in place of the initial `MeshTimeout`, Kuma has no word for it: a warning says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from kumafast.generation.http_routes import matches_name
from kumafast.matching import CompiledPolicy
from kumafast.matching.explanation import silences_inbound, silences_outbound
from kumafast.matching.policy import ANY_SERVICE
from kumafast.matching.rules import Rule, catch_all, inbound_rules, to_rule, whole_rule
from kumafast.resources import Mesh, target_ref_policy
from kumafast.resources.policies.mesh_http_route import Match, MeshHTTPRoute
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import MESH
from kumafast.resources.target_ref_policy import TargetRefPolicy, UnmatchedRule
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import json_response
from kumafast.rest.inspection import SENT_AS_TAKEN, Proxy, find_proxy, inbound_document, meta
from kumafast.rest.services import ApiServices

Json: TypeAlias = dict[str, Any]


def show_rules(services: ApiServices) -> Handler:
    """`GET /meshes/{mesh}/dataplanes/{name}/_rules`."""

    async def show(request: Request) -> Response:
        """What the policies of a proxy come to, kind by kind."""
        return json_response(rules_document(await find_proxy(services, request)))

    return show


def rules_document(proxy: Proxy) -> Json:
    """The whole answer. O(the policies of the proxy and what they say)."""
    policies = proxy.bindings.subjects.policies
    by_kind: dict[tuple[int, str], list[CompiledPolicy]] = {}
    for number in proxy.bindings.ranks:
        policy = policies[number]
        if policy.is_target_ref:
            by_kind.setdefault((policy.order, policy.key.type), []).append(policy)
    warnings = _warnings(proxy)
    entries = [_Kind(proxy, kind, by_kind[order, kind]).document(warnings) for order, kind in sorted(by_kind)]
    found = [entry for entry in entries if entry is not None]
    return {"httpMatches": _http_matches(found), "resource": meta(proxy.dataplane), "rules": found}


def _http_matches(entries: Iterable[Json]) -> list[Json]:
    """What the rules of routes match, by the name that their routes have in Envoy."""
    routes = (entry for entry in entries if entry["type"] == MeshHTTPRoute.type.name)
    rules = (rule for entry in routes for to in entry["toRules"] for rule in to["conf"].get("rules", ()))
    found = {matches_name(map(Match.model_validate, rule["matches"])): rule["matches"] for rule in rules}
    return [{"hash": name, "match": found[name]} for name in sorted(found)]


class _Kind:
    """The policies of one kind that are for a proxy."""

    def __init__(self, proxy: Proxy, name: str, policies: Iterable[CompiledPolicy]) -> None:
        self._proxy = proxy
        self.name = name
        self._policies = sorted(policies, key=lambda policy: policy.weight)

    def document(self, warnings: Mapping[str, list[str]]) -> Json | None:
        """The kind's entry; None where its policies say nothing of this proxy."""
        said: Json = {
            "fromRules": list(self._from_rules()),
            "inboundRules": list(self._inbound_rules()),
            "toResourceRules": [] if self.name in SENT_AS_TAKEN else list(self._to_resource_rules()),
            "toRules": [] if self.name in SENT_AS_TAKEN else list(self._to_rules()),
            "warnings": warnings.get(self.name, []),
        }
        whole = [policy for policy in self._policies if policy.proxy is not None]
        if whole:
            rule = whole_rule(whole)
            said["proxyRule"] = {"conf": rule.conf, "origin": [meta(self._written(policy)) for policy in rule.origin]}
        return {**said, "type": self.name} if any(said.values()) else None

    # What the proxy sends.

    def _to_rules(self) -> Iterator[Json]:
        about: dict[str, list[CompiledPolicy]] = {}
        for policy in self._policies:
            for service in dict.fromkeys(item.service for item in policy.outbound if item.service):
                about.setdefault(service, []).append(policy)
        general = about.pop(ANY_SERVICE, [])
        for service, policies in about.items():
            rule = to_rule({*policies, *general}, service)
            assert rule is not None
            yield self._rule([{"key": SERVICE_TAG, "not": False, "value": service}], rule)
        rule = to_rule(general, ANY_SERVICE)
        if rule is not None:
            yield self._rule([], rule)

    def _to_resource_rules(self) -> Iterator[Json]:
        """Those of resources that outbounds lead to. There are none but the mesh itself; services are tags."""
        general = to_rule((policy for policy in self._policies if policy.services is None), ANY_SERVICE)
        if general is None:
            return
        origin = [
            self._origin(policy, index)
            for policy in general.origin
            for index, item in enumerate(self._written(policy).spec.to)
            if item.target_ref.kind == MESH
        ]
        yield {
            "conf": [general.conf],
            "origin": origin,
            "resourceMeta": {"labels": {}, "mesh": "", "name": self._proxy.mesh.name, "type": Mesh.type.name},
            "resourceSectionName": "",
        }

    # What the proxy takes.

    def _inbounds(self) -> Iterator[tuple[Json, list[CompiledPolicy]]]:
        for position, inbound in enumerate(self._proxy.inbounds):
            about = [policy for policy, _ in self._proxy.bindings.about_inbound(position)]
            mine = [policy for policy in about if policy.key.type == self.name]
            if mine:
                yield dict(inbound_document(inbound)), sorted(mine, key=lambda policy: policy.weight)

    def _from_rules(self) -> Iterator[Json]:
        for inbound, policies in self._inbounds():
            written = [policy for policy in policies if self._written(policy).spec.from_]
            is_by_source = any(item.source is not None for policy in policies for item in policy.inbound)
            rules = list(self._sources(written) if is_by_source else self._everybody(written))
            if rules:
                yield {"inbound": inbound, "rules": rules}

    def _everybody(self, policies: Sequence[CompiledPolicy]) -> Iterator[Json]:
        rule = catch_all(inbound_rules(policies))
        if rule is not None:
            yield self._rule([], rule)

    def _sources(self, policies: Sequence[CompiledPolicy]) -> Iterator[Json]:
        """One rule for each distinct source, those of more weight first; one that is never reached is left out."""
        seen = set()
        for policy in reversed(policies):
            for item in reversed(policy.inbound):
                if item.source is not None and item.source not in seen:
                    seen.add(item.source)
                    matchers = [{"key": key, "not": False, "value": value} for key, value in item.source.items()]
                    yield self._rule(matchers, Rule(item.conf, (policy,)))

    def _inbound_rules(self) -> Iterator[Json]:
        for inbound, policies in self._inbounds():
            rules = [self._inbound_rule(part) for part in inbound_parts(policies)]
            if rules:
                yield {"inbound": inbound, "rules": rules}

    def _inbound_rule(self, part: Rule) -> Json:
        origin = [self._origin(each, index) for each in part.origin for index in self._indexes(each, part)]
        rule: Json = {"conf": [part.conf], "origin": origin}
        if part.match is not None:
            rule["match"] = part.match.model_dump(mode="json", by_alias=True, exclude_none=True)
        return rule

    def _indexes(self, policy: CompiledPolicy, part: Rule) -> list[int]:
        """Which of a policy's rules, or of its sources where it has no rules, a part is made of."""
        spec = self._written(policy).spec
        if not spec.rules:
            return list(range(len(spec.from_)))
        if policy.is_listed:
            listed = [item.conf for item in policy.inbound if item.source is None]
            return [listed.index(part.conf)]
        rules: tuple[target_ref_policy.Rule[Any] | UnmatchedRule[Any], ...] = spec.rules
        return [index for index, rule in enumerate(rules) if part.match in (rule.matches or (None,))]

    # How answers put it.

    def _written(self, policy: CompiledPolicy) -> TargetRefPolicy:
        stored = self._proxy.picture.written(policy.key)
        assert stored is not None
        assert isinstance(stored.resource, TargetRefPolicy)
        return stored.resource

    def _rule(self, matchers: list[Json], rule: Rule) -> Json:
        origin = [meta(self._written(policy)) for policy in rule.origin]
        return {"conf": rule.conf, "matchers": matchers, "origin": origin}

    def _origin(self, policy: CompiledPolicy, index: int) -> Json:
        return {"resourceMeta": meta(self._written(policy)), "ruleIndex": index}


def inbound_parts(policies: Iterable[CompiledPolicy]) -> Iterator[Rule]:
    """What policies of one kind say of what comes in: rules with a match, then all without one as one.

    Of kinds that list what they say each rule stands for itself.
    """
    ordered = sorted(policies, key=lambda policy: policy.weight)
    if ordered and ordered[0].is_listed:
        for policy in ordered:
            yield from (Rule(item.conf, (policy,)) for item in policy.inbound if item.source is None)
        return
    rules = inbound_rules(ordered)
    yield from (rule for rule in rules if rule.match is not None)
    general = catch_all(rules)
    if general is not None:
        yield general


def _warnings(proxy: Proxy) -> dict[str, list[str]]:
    """By kind, that another kind is heard in its place, for whom, and why."""
    bindings = proxy.bindings
    if not any(bindings.subjects.policies[number].successor for number in bindings.ranks):
        return {}
    said: dict[tuple[str, str], list[str]] = {}

    def note(silences: Iterable[tuple[str, str]], subject: str) -> None:
        for silence in silences:
            said.setdefault(silence, []).append(subject)

    for service in dict.fromkeys(outbound.service for outbound in proxy.dataplane.outbounds if outbound.service):
        note(silences_outbound(bindings, service), f"requests to {service}")
    for position, inbound in enumerate(proxy.inbounds):
        note(silences_inbound(bindings, position), f"the inbound {inbound.section_name}")
    warnings: dict[str, list[str]] = {}
    for (kind, why), subjects in said.items():
        warnings.setdefault(kind, []).append(f"has no effect on {', '.join(subjects)}: {why}")
    return warnings
