"""MeshTCPRoute: where connections to a service lead. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshTCPRoute`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.route_refs import ROUTE_TOP_KINDS, BackendRef, check_backend_refs, check_route_to
from kumafast.resources.target_ref import check_target_ref
from kumafast.resources.target_ref_policy import OutboundSpec, TargetRefPolicy, To


class Conf(Frozen):
    """Where connections lead: where they would without the route, if it is not said."""

    backend_refs: tuple[BackendRef, ...] = ()


class RouteRule(Frozen):
    """What holds for all connections."""

    default: Conf = Conf()


class RouteTo(To[Conf]):
    """What holds for connections to a destination: a list of at most one rule, in place of the one conf."""

    default: ClassVar[None] = None  # type: ignore[misc]
    rules: tuple[RouteRule, ...] = ()

    @property
    def conf(self) -> Conf:
        """What the one rule says."""
        return self.rules[0].default if self.rules else Conf()


class RouteSpec(OutboundSpec[Conf]):
    """Whom a route is for, and what it says."""

    to: tuple[RouteTo, ...] = ()


class MeshTCPRoute(TargetRefPolicy):
    """Says where connections of some proxies to some services lead."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshTCPRoute",
        scope=Scope.MESH,
        path="meshtcproutes",
        singular="Mesh TCP Route",
        plural="Mesh TCP Routes",
        short_name="mtcpr",
        is_in_federation=True,
        policy=PolicyTraits(order=200, is_target_ref=True, has_to=True, is_routing=True),
    )

    spec: RouteSpec = RouteSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of routes that this one breaks, in the order of Kuma's checks."""
        top = self.spec.top
        yield from check_target_ref("spec.targetRef", top, kinds=ROUTE_TOP_KINDS)
        for i, to in enumerate(self.spec.to):
            path = f"spec.to[{i}]"
            yield from check_route_to(f"{path}.targetRef", to.target_ref, top=top.kind)
            if len(to.rules) > 1:
                yield Violation(f"{path}.rules", "in body should have at most 1 items")
            for j, rule in enumerate(to.rules):
                refs = rule.default.backend_refs
                if not refs:
                    yield Violation(f"{path}.rules[{j}].default.backendRefs", "must be defined")
                yield from check_backend_refs(f"{path}.rules[{j}].default.backendRefs", refs)
