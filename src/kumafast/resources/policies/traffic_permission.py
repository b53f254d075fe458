"""TrafficPermission: which dataplanes may connect to which services. The form with sources and destinations.

In: documents in Kuma's 2.14 form, or with the `rules` of 0.1.0. Out: `TrafficPermission`, frozen, and the rules that it
breaks. Never: what Envoy makes of it.

0.1.0 let in whoever any rule of any permission let in. Since 2.14 one permission alone counts for an inbound: the one
whose destination is the most specific. An old document whose rules are about the same destinations says one thing and
becomes one permission. Otherwise its rules stay apart, and each counts as a permission of its own: what an inbound
takes is then never more than 0.1.0 let in, and less where 0.1.0 would have added up rules about different destinations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from kumafast.errors import Violation
from kumafast.resources import aliases
from kumafast.resources.connection_policy import ConnectionPolicy, Selector, check_selectors
from kumafast.resources.fields import FrozenMap, Tags
from kumafast.resources.resource import Frozen, PolicyTraits, Resource, ResourceType, Scope
from kumafast.resources.tags import SERVICE_TAG

_RULES_MAX = 256


class Rule(Frozen):
    """One rule of 0.1.0: a permission within a permission."""

    sources: tuple[Selector, ...] = ()
    destinations: tuple[Selector, ...] = ()


class Conf(Frozen):
    """Who may connect: the tags of each that may, and the name of the permission that says so."""

    name: str = ""
    sources: tuple[Tags, ...] = ()


class TrafficPermission(ConnectionPolicy):
    """Lets some dataplanes connect to some inbounds, in a mesh with TLS; there nobody may who is not let."""

    type: ClassVar[ResourceType] = ResourceType(
        name="TrafficPermission",
        scope=Scope.MESH,
        path="traffic-permissions",
        singular="Traffic Permission",
        plural="Traffic Permissions",
        is_in_federation=True,
        other_path="traffic-permission",
        policy=PolicyTraits(order=1100, successor="MeshTrafficPermission", is_by_inbound=True),
    )

    rules: tuple[Rule, ...] = ()

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with the rules of 0.1.0 replaced by sources and destinations, where that says the same."""
        return aliases.permission_fields(fields)

    @classmethod
    def initial_routing(cls, mesh: str) -> tuple[Resource, ...]:
        """Everybody may connect to everything."""
        everything = {"match": {SERVICE_TAG: "*"}}
        fields = {"mesh": mesh, "name": f"allow-all-{mesh}", "sources": [everything], "destinations": [everything]}
        return (cls.model_validate(fields),)

    @property
    def parts(self) -> tuple[TrafficPermission, ...]:
        """The permissions that it stands for: itself, or one for each rule of 0.1.0."""
        if not self.rules:
            return (self,)
        return tuple(
            self.model_copy(update={"sources": rule.sources, "destinations": rule.destinations, "rules": ()})
            for rule in self.rules
        )

    def settings(self) -> Conf | None:
        """Who may connect."""
        # A value that may be any is no condition, so it is left out; a selector of nothing else lets in everybody.
        sources = (
            FrozenMap((tag, value) for tag, value in source.match.items() if value != "*") for source in self.sources
        )
        return Conf(name=self.name, sources=tuple(dict.fromkeys(sources)))

    def violations(self) -> Iterator[Violation]:
        """Every rule of permissions that this one breaks, in the order of Kuma's checks."""
        if not self.rules:
            yield from check_selectors("sources", self.sources)
            yield from check_selectors("destinations", self.destinations)
            return
        if self.sources or self.destinations:
            yield Violation("rules", "must not be defined beside 'sources' and 'destinations'")
        if len(self.rules) > _RULES_MAX:
            yield Violation("rules", f"must have at most {_RULES_MAX} elements")
        for i, rule in enumerate(self.rules):
            yield from check_selectors(f"rules[{i}].sources", rule.sources)
            yield from check_selectors(f"rules[{i}].destinations", rule.destinations)

    def remarks(self) -> Iterator[str]:
        """That several rules are several permissions now, of which one counts for an inbound."""
        if self.rules:
            yield (
                f"rules: each of the {len(self.rules)} rules is a permission of its own, and for each inbound only the "
                "one with the most specific destination counts; 0.1.0 let in whoever any of them let in"
            )
