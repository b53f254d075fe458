"""MeshTrafficPermission: who may connect to whom. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshTrafficPermission`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from kumafast.errors import Violation
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import (
    DATAPLANE,
    MESH,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_SUBSET,
    check_target_ref,
)
from kumafast.resources.target_ref_policy import Match, Spec, TargetRefPolicy, check_match

_TOP_KINDS = (MESH, MESH_SUBSET, MESH_SERVICE, MESH_SERVICE_SUBSET, DATAPLANE)
_FROM_KINDS = (MESH, MESH_SUBSET, MESH_SERVICE, MESH_SERVICE_SUBSET)
_SPIFFE_ID = re.compile(r"spiffe://[a-zA-Z0-9.\-_:/]*")
_CHARACTERS = "letters, numbers, dots, dashes, colons and underscores, in segments divided by slashes"


class Conf(Frozen):
    """What happens to those that a source names (`action`), or, in a rule, to those that one of the matches finds."""

    action: Literal["", "Allow", "Deny", "AllowWithShadowDeny"] = ""
    deny: tuple[Match, ...] = ()
    allow_with_shadow_deny: tuple[Match, ...] = ()
    allow: tuple[Match, ...] = ()


class MeshTrafficPermission(TargetRefPolicy):
    """Lets some clients connect to some proxies, in a mesh with TLS; there nobody may who is not let."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshTrafficPermission",
        scope=Scope.MESH,
        path="meshtrafficpermissions",
        singular="Mesh Traffic Permission",
        plural="Mesh Traffic Permissions",
        short_name="mtp",
        is_in_federation=True,
        policy=PolicyTraits(order=1100, is_target_ref=True, has_from=True, has_rules=True, is_listed=True),
    )

    spec: Spec[Conf] = Spec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of permissions that this one breaks, in the order of Kuma's checks."""
        spec = self.spec
        yield from check_target_ref("spec.targetRef", spec.top, kinds=_TOP_KINDS, is_inbound=spec.is_inbound)
        if spec.to:
            yield Violation("spec.to", "must not be defined")
        if spec.from_ and spec.rules:
            yield Violation("spec", "field 'from' must be empty when 'rules' is defined")
        if not (spec.from_ or spec.rules):
            yield Violation("spec", "at least one of 'from' or 'rules' has to be defined")
        for i, rule in enumerate(spec.rules):
            yield from _check_rule(f"spec.rules[{i}]", rule.default or Conf(), has_matches=bool(rule.matches))
        for i, source in enumerate(spec.from_):
            yield from check_target_ref(f"spec.from[{i}].targetRef", source.target_ref, kinds=_FROM_KINDS)
            if not (source.default or Conf()).action:
                yield Violation(f"spec.from[{i}].default.action", "must be defined")


def _check_rule(path: str, conf: Conf, *, has_matches: bool) -> Iterator[Violation]:
    if has_matches:
        yield Violation(f"{path}.matches", "must not be defined")
    if not (conf.deny or conf.allow or conf.allow_with_shadow_deny):
        yield Violation(path, "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined")
    lists = (("allow", conf.allow), ("allowWithShadowDeny", conf.allow_with_shadow_deny), ("deny", conf.deny))
    for name, matches in lists:
        for i, match in enumerate(matches):
            # As in Kuma, the path of a match leaves out `default`.
            yield from check_match(f"{path}.{name}[{i}]", match)
            yield from _check_spiffe_id(f"{path}.{name}[{i}].spiffeID", match)


def _check_spiffe_id(path: str, match: Match) -> Iterator[Violation]:
    identity = match.spiffe_id
    if identity is None:
        return
    if not identity.type:
        yield Violation(f"{path}.type", "must be set")
    if identity.value.startswith("spiffe://") and not _SPIFFE_ID.fullmatch(identity.value):
        yield Violation(path, f"must be a valid Spiffe ID: characters are limited to {_CHARACTERS}")
