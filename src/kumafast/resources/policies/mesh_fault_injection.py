"""MeshFaultInjection: requests that are delayed, refused or answered slowly, to see what becomes of it.

The form with a targetRef. In: documents in Kuma's 2.14 form. Out: `MeshFaultInjection`, frozen, and the rules that it
breaks. Never: what Envoy makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.conf_rules import (
    MUST_BE_DEFINED,
    MUST_NOT_BE_DEFINED,
    DecimalNumber,
    check_percentage,
    check_status,
)
from kumafast.resources.durations import GoDuration, nanoseconds
from kumafast.resources.fields import Int32, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import (
    MESH,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_SUBSET,
    PROXIES,
    check_target_ref,
    includes_gateways,
    is_only_gateways,
)
from kumafast.resources.target_ref_policy import BESIDE_RULES, Spec, TargetRefPolicy, check_match

_FROM_KINDS = (MESH, MESH_SUBSET, MESH_SERVICE, MESH_SERVICE_SUBSET)
_EXCLUDE = "exclude non-gateway resources or select only gateways and use spec.to"
_BANDWIDTH = re.compile(r"[0-9]{1,18} ?(k|M|G)bps", re.ASCII)
_REFUSALS = 200
"""Envoy gives no answer below, which is the beginning of one."""


class Abort(Frozen):
    """A share of the requests, in percent, that are answered with a status at once."""

    http_status: Int32 = 0
    percentage: DecimalNumber = 0


class Delay(Frozen):
    """A share of the requests, in percent, that wait for so long."""

    value: GoDuration | None = None
    percentage: DecimalNumber = 0


class ResponseBandwidth(Frozen):
    """A share of the answers, in percent, that come so slowly: `50Mbps`."""

    limit: Text = ""
    percentage: DecimalNumber = 0


class Fault(Frozen):
    """What goes wrong."""

    abort: Abort | None = None
    delay: Delay | None = None
    response_bandwidth: ResponseBandwidth | None = None


class Conf(Frozen):
    """Faults, each of which happens whether the others do or not."""

    http: tuple[Fault, ...] | None = None


class MeshFaultInjection(TargetRefPolicy):
    """Faults in requests that proxies take."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshFaultInjection",
        scope=Scope.MESH,
        path="meshfaultinjections",
        singular="Mesh Fault Injection",
        plural="Mesh Fault Injections",
        short_name="mfi",
        is_in_federation=True,
        policy=PolicyTraits(
            order=800,
            is_target_ref=True,
            has_to=True,
            has_from=True,
            has_rules=True,
            has_cases=True,
            is_to_of_gateways=True,
            asks_sender=True,
        ),
    )

    spec: Spec[Conf] = Spec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh fault injections that this one breaks, in the order of Kuma's checks."""
        spec, top = self.spec, self.spec.top
        if spec.rules and (spec.to or spec.from_):
            yield Violation("spec", BESIDE_RULES)
        yield from check_target_ref("spec.targetRef", top, kinds=PROXIES, is_inbound=spec.is_inbound)
        if spec.rules and is_only_gateways(top):
            yield Violation("spec.rules", MUST_NOT_BE_DEFINED)
        else:
            for i, rule in enumerate(spec.rules):
                for j, match in enumerate(rule.matches):
                    yield from check_match(f"spec.rules[{i}].matches[{j}]", match)
                yield from _check_conf(f"spec.rules[{i}].default", rule.default or Conf())
        if spec.from_ and includes_gateways(top):
            yield Violation("spec.from", f"{MUST_NOT_BE_DEFINED} when the scope includes a Gateway, {_EXCLUDE}")
        else:
            for i, source in enumerate(spec.from_):
                yield from check_target_ref(f"spec.from[{i}].targetRef", source.target_ref, kinds=_FROM_KINDS)
                yield from _check_conf(f"spec.from[{i}].default", source.default or Conf())
        if spec.to and not includes_gateways(top):
            yield Violation("spec.to", MUST_NOT_BE_DEFINED)
        else:
            for i, item in enumerate(spec.to):
                yield from check_target_ref(f"spec.to[{i}].targetRef", item.target_ref, kinds=(MESH,))
                yield from _check_conf(f"spec.to[{i}].default", item.default or Conf())


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    # As in Kuma, the number of a fault stands behind what goes wrong in it.
    for i, fault in enumerate(conf.http or ()):
        if fault.abort is not None:
            where = f"{path}.http.abort[{i}]"
            yield from check_status(f"{where}.httpStatus", fault.abort.http_status)
            if 100 <= fault.abort.http_status < _REFUSALS:
                # Kuma lets it pass, and its Envoys refuse the listener.
                yield Violation(f"{where}.httpStatus", f"must be at least {_REFUSALS}")
            yield from check_percentage(f"{where}.percentage", fault.abort.percentage)
        if fault.delay is not None:
            where = f"{path}.http.delay[{i}]"
            if fault.delay.value is not None and nanoseconds(fault.delay.value) < 0:
                yield Violation(f"{where}.value", "must not be negative when defined")
            yield from check_percentage(f"{where}.percentage", fault.delay.percentage)
        if fault.response_bandwidth is not None:
            where = f"{path}.http.responseBandwidth[{i}]"
            yield from _check_bandwidth(f"{where}.responseBandwidth", fault.response_bandwidth.limit)
            yield from check_percentage(f"{where}.percentage", fault.response_bandwidth.percentage)


def _check_bandwidth(path: str, limit: str) -> Iterator[Violation]:
    if not limit:
        yield Violation(path, MUST_BE_DEFINED)
    elif not _BANDWIDTH.fullmatch(limit):
        yield Violation(path, "must be in kbps/Mbps/Gbps units")
