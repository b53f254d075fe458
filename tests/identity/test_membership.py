"""A mesh's constraints: one requirement must hold for each inbound and gateway, and no restriction."""

from __future__ import annotations

from typing import Any

import pytest
from tests import builders

from kumafast.identity.membership import check_membership

WEB = {"kuma.io/service": "web", "team": "shop"}


def constrained(**constraints: Any) -> Any:
    rules = {name: [{"tags": tags} for tags in several] for name, several in constraints.items()}
    return builders.mesh(constraints={"dataplaneProxy": rules})


@pytest.mark.parametrize(
    ("constraints", "inbounds", "refused"),
    [
        ({}, [WEB], []),
        ({"requirements": [{"team": "shop"}]}, [WEB], []),
        ({"requirements": [{"team": "*"}]}, [WEB], []),
        ({"requirements": [{"team": "pay"}, {"team": "shop"}]}, [WEB], []),
        ({"requirements": [{"team": "shop", "kuma.io/service": "cart"}]}, [WEB], [0]),
        ({"requirements": [{"team": "*"}]}, [{"kuma.io/service": "web"}], [0]),
        # No union: each inbound by itself.
        ({"requirements": [{"team": "shop", "version": "1"}]}, [WEB, {"kuma.io/service": "b", "version": "1"}], [0, 1]),
        ({"requirements": [{"team": "shop"}]}, [WEB, {"kuma.io/service": "b"}], [1]),
        ({"restrictions": [{"team": "shop"}]}, [WEB], [0]),
        ({"restrictions": [{"team": "*"}]}, [{"kuma.io/service": "web"}], []),
        ({"restrictions": [{"team": "shop", "version": "1"}]}, [WEB], []),
        ({"requirements": [{"team": "shop"}], "restrictions": [{"kuma.io/service": "web"}]}, [WEB], [0]),
    ],
)
def test_inbounds(constraints: dict[str, Any], inbounds: list[dict[str, str]], refused: list[int]) -> None:
    dataplane = builders.dataplane(inbound=[builders.inbound(8080 + i, tags=tags) for i, tags in enumerate(inbounds)])
    found = [violation.field for violation in check_membership(dataplane, constrained(**constraints))]
    assert found == [f"networking.inbound[{i}].tags" for i in refused]


def test_a_gateway_is_checked_too() -> None:
    gateway = {"type": "DELEGATED", "tags": {"kuma.io/service": "edge"}}
    dataplane = builders.dataplane(inbound=[], gateway=gateway)
    mesh = constrained(restrictions=[{"kuma.io/service": "edge"}])
    assert [violation.field for violation in check_membership(dataplane, mesh)] == ["networking.gateway.tags"]


def test_without_tags_no_requirement_is_fulfilled() -> None:
    dataplane = builders.dataplane(inbound=[])
    assert [each.field for each in check_membership(dataplane, constrained(requirements=[{"team": "*"}]))] == [
        "networking"
    ]
    assert list(check_membership(dataplane, constrained(restrictions=[{"team": "*"}]))) == []


def test_messages_name_what_is_in_the_way() -> None:
    dataplane = builders.dataplane(tags=WEB)
    (missing,) = check_membership(dataplane, constrained(requirements=[{"team": "pay"}]))
    assert missing.message == (
        'dataplane cannot be a member of mesh "default" because its tags "kuma.io/service=web team=shop" '
        "does not fulfill any requirements defined on the Mesh"
    )
    (denied,) = check_membership(dataplane, constrained(restrictions=[{"team": "*"}]))
    assert denied.message == (
        'dataplane cannot be a member of mesh "default" because its tags "kuma.io/service=web team=shop" '
        'matches restricted tags "team=*" defined on the Mesh'
    )
