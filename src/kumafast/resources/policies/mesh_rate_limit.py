"""MeshRateLimit: how much an instance takes in a time. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshRateLimit`, frozen, and the rules that it breaks.
Never: what Envoy makes of it; a limit for several instances together, which Kuma has outside of its open source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.conf_rules import MUST_BE_DEFINED, MUST_NOT_BE_DEFINED, check_any, check_counts
from kumafast.resources.durations import GoDuration, nanoseconds
from kumafast.resources.fields import Count, Flag
from kumafast.resources.header_match import HeaderModifier
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import (
    MESH,
    MESH_HTTP_ROUTE,
    PROXIES,
    TargetRef,
    check_target_ref,
    includes_gateways,
)
from kumafast.resources.target_ref_policy import BESIDE_RULES, Rule, Spec, TargetRefPolicy, check_match

_TOP_KINDS = (*PROXIES, MESH_HTTP_ROUTE)
_INTERVAL_MIN = 50_000_000
_NEEDS_SIDECARS = "select only proxyType Sidecar or select only gateways and use spec.to"
_NO_SENDER = (
    "can't be specified when matches contain spiffeID because this field cannot be conditioned on source identity"
)


class Rate(Frozen):
    """So many in a time."""

    num: Count = 0
    interval: GoDuration | None = None


class OnRateLimit(Frozen):
    """How what is too much is answered: 429 where no status is named."""

    status: Count | None = None
    headers: HeaderModifier | None = None


class LocalHttp(Frozen):
    """A limit of requests."""

    disabled: Flag | None = None
    request_rate: Rate | None = None
    on_rate_limit: OnRateLimit | None = None


class LocalTcp(Frozen):
    """A limit of connections."""

    disabled: Flag | None = None
    connection_rate: Rate | None = None


class Local(Frozen):
    """Limits of one instance."""

    http: LocalHttp | None = None
    tcp: LocalTcp | None = None


class Conf(Frozen):
    """Limits of one instance, the only ones there are."""

    local: Local | None = None


class MeshRateLimit(TargetRefPolicy):
    """Limits of what proxies take."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshRateLimit",
        scope=Scope.MESH,
        path="meshratelimits",
        singular="Mesh Rate Limit",
        plural="Mesh Rate Limits",
        short_name="mrl",
        is_in_federation=True,
        policy=PolicyTraits(
            order=900,
            is_target_ref=True,
            has_to=True,
            has_from=True,
            has_rules=True,
            is_from_as_rules=True,
            has_cases=True,
            is_to_of_gateways=True,
        ),
    )

    spec: Spec[Conf] = Spec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh rate limits that this one breaks, in the order of Kuma's checks."""
        spec, top = self.spec, self.spec.top
        if spec.rules and (spec.to or spec.from_):
            yield Violation("spec", BESIDE_RULES)
        yield from check_target_ref("spec.targetRef", top, kinds=_TOP_KINDS, is_inbound=spec.is_inbound)
        has_gateways = includes_gateways(top)
        if spec.rules and has_gateways:
            yield Violation("spec.rules", MUST_NOT_BE_DEFINED)
        else:
            for i, rule in enumerate(spec.rules):
                yield from _check_rule(f"spec.rules[{i}]", rule)
        yield from self._check_from(top)
        if spec.to and not has_gateways:
            yield Violation("spec.to", MUST_NOT_BE_DEFINED)
        else:
            for i, item in enumerate(spec.to):
                yield from check_target_ref(f"spec.to[{i}].targetRef", item.target_ref, kinds=(MESH,))
                yield from _check_conf(f"spec.to[{i}].default", item.default or Conf())

    def _check_from(self, top: TargetRef) -> Iterator[Violation]:
        if self.spec.from_ and includes_gateways(top):
            yield Violation("spec.from", f"{MUST_NOT_BE_DEFINED} when the scope includes a Gateway, {_NEEDS_SIDECARS}")
            return
        for i, item in enumerate(self.spec.from_):
            yield from check_target_ref(f"spec.from[{i}].targetRef", item.target_ref, kinds=(MESH,))
            yield from _check_conf(f"spec.from[{i}].default", item.default or Conf())


def _check_rule(path: str, rule: Rule[Conf]) -> Iterator[Violation]:
    conf = rule.default or Conf()
    for i, match in enumerate(rule.matches):
        yield from check_match(f"{path}.matches[{i}]", match)
    yield from _check_conf(f"{path}.default", conf)
    has_sender = any(match.spiffe_id is not None for match in rule.matches)
    if has_sender and conf.local is not None and conf.local.tcp is not None:
        yield Violation(f"{path}.default.local.tcp", _NO_SENDER)


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    local, where = conf.local, f"{path}.local"
    if local is None:
        yield Violation(where, MUST_BE_DEFINED)
        return
    yield from check_any(where, local, "tcp", "http")
    if local.http is not None:
        yield from check_any(f"{where}.http", local.http, "disabled", "requestRate", "onRateLimit")
        yield from _check_rate(f"{where}.http.requestRate", local.http.request_rate)
        answer = local.http.on_rate_limit
        if answer is not None:
            yield from check_counts(f"{where}.http.onRateLimit", answer, "status")
            if answer.headers is not None:
                yield from answer.headers.violations(f"{where}.http.onRateLimit.headers")
    if local.tcp is not None:
        yield from check_any(f"{where}.tcp", local.tcp, "disabled", "connectionRate")
        yield from _check_rate(f"{where}.tcp.connectionRate", local.tcp.connection_rate)


def _check_rate(path: str, rate: Rate | None) -> Iterator[Violation]:
    if rate is None:
        return
    yield from check_counts(path, rate, "num")
    if rate.interval is None or nanoseconds(rate.interval) <= _INTERVAL_MIN:
        yield Violation(f"{path}.interval", "must be greater than: 50ms")
