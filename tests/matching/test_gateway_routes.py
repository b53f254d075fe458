"""What routes come to for a listener of a gateway: by host name, in the Gateway API's order, whatever their form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.gateways import gateway_route, rule, targeted_route, targeted_rule, tcp_route, to
from tests.pipeline import mesh_route

from kumafast.matching import BackendPort
from kumafast.matching.backend_refs import Destination
from kumafast.matching.gateway_routes import Attached, GatewayRoute, attached, compile_route
from kumafast.resources import Resource
from kumafast.resources.hostnames import breadth, common, contains
from kumafast.resources.mesh_gateway import Listener

NOW = datetime(2027, 1, 1, tzinfo=UTC)
ALL = Listener(port=80, protocol="HTTP")


def listener(hostname: str, protocol: Any = "HTTP") -> Listener:
    return Listener(port=80, protocol=protocol, hostname=hostname)


def compiled(*routes: Resource) -> list[GatewayRoute]:
    """Routes as they are matched, each made later than the one before."""
    found = (compile_route(route, created=NOW + timedelta(seconds=number)) for number, route in enumerate(routes))
    return [each for each in found if each is not None]


def _service(destination: Destination) -> str:
    assert not isinstance(destination, BackendPort)
    return dict(destination)["kuma.io/service"]


def led(found: Attached) -> dict[str, list[tuple[str, list[str]]]]:
    """For each host the path of each rule and where it leads."""
    return {
        host.hostname: [
            (
                str(rule.match.get("path", {}).get("value")),
                [_service(leg.destination) for leg in rule.legs],
            )
            for rule in host.rules
        ]
        for host in found.hosts
    }


@pytest.mark.parametrize(
    ("served", "named", "found"),
    [
        ("*", (), ["*"]),
        ("*", ("a.com", "*.a.com"), ["a.com", "*.a.com"]),
        ("*.a.com", (), ["*.a.com"]),
        ("*.a.com", ("*",), ["*.a.com"]),
        ("*.a.com", ("b.a.com", "a.com", "c.com"), ["b.a.com"]),
        ("b.a.com", ("*.a.com", "*.com"), ["b.a.com"]),
        ("b.a.com", ("c.com",), []),
    ],
)
def test_a_route_is_for_the_hosts_that_it_and_its_listener_name(
    served: str, named: tuple[str, ...], found: list[str]
) -> None:
    routes = compiled(gateway_route(hostnames=named))
    assert [host.hostname for host in attached(listener(served), routes).hosts] == found


def test_what_is_said_of_more_hosts_holds_for_each_of_them_after_the_rest() -> None:
    routes = compiled(
        gateway_route(rule("/", to("all")), rule("/deep/er", to("all")), name="a"),
        gateway_route(rule("/", to("some")), name="b", hostnames=["*.a.com"]),
        gateway_route(rule("/deep", to("one")), name="c", hostnames=["b.a.com"]),
    )
    assert led(attached(ALL, routes)) == {
        "b.a.com": [("/deep/er", ["all"]), ("/deep", ["one"]), ("/", ["some"])],
        "*.a.com": [("/deep/er", ["all"]), ("/", ["some"])],
        "*": [("/deep/er", ["all"]), ("/", ["all"])],
    }


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_order_in_which_routes_come_does_not_matter(is_reversed: bool) -> None:
    routes = compiled(gateway_route(rule("/", to("one")), name="a"), gateway_route(rule("/", to("two")), name="b"))
    # The later one outweighs.
    assert led(attached(ALL, routes[::-1] if is_reversed else routes)) == {"*": [("/", ["two"])]}


def test_those_with_a_targetref_silence_the_others_of_their_kind() -> None:
    routes = compiled(
        gateway_route(),
        targeted_route(targeted_rule("/", "mine")),
        tcp_route(to("bytes", 2), to("bytes-2", 1), to("none", 0)),
    )
    assert led(attached(ALL, routes)) == {"*": [("/", ["mine"])]}
    connections = attached(listener("", "TCP"), routes)
    assert [(dict(leg.destination), leg.weight) for leg in connections.legs] == [  # type: ignore[arg-type]
        ({"kuma.io/service": "bytes"}, 2),
        ({"kuma.io/service": "bytes-2"}, 1),
    ]


def test_routes_with_a_targetref_are_merged_by_host_and_match() -> None:
    low = targeted_route(targeted_rule("/", "low"), targeted_rule("/low", "low"), name="z", hostnames=["a.com"])
    high = targeted_route(targeted_rule("/", "high"), name="a", hostnames=["a.com", "b.com"])
    assert led(attached(ALL, compiled(low, high))) == {
        "a.com": [("/low", ["low"]), ("/", ["high"])],
        "b.com": [("/", ["high"])],
    }


def test_weights_that_nobody_has_are_the_same_for_all() -> None:
    backends = [{"destination": {"kuma.io/service": name}} for name in ("a", "b")]
    (host,) = attached(ALL, compiled(gateway_route(rule("/", *backends)))).hosts
    assert [leg.weight for leg in host.rules[0].legs] == [1, 1]


def test_a_prefix_is_read_without_the_slash_at_its_end() -> None:
    route = gateway_route(rule("/a/", to("a")), rule("/", to("b")))
    assert led(attached(ALL, compiled(route))) == {"*": [("/a", ["a"]), ("/", ["b"])]}


def test_a_route_for_sidecars_is_none_for_gateways() -> None:
    assert compile_route(mesh_route(), created=NOW) is None


def test_host_names_in_their_order() -> None:
    names = ["*", "*.com", "a.com", "*.a.com", "b.a.com"]
    assert sorted(names, key=breadth) == ["b.a.com", "a.com", "*.a.com", "*.com", "*"]
    for broad in names:
        for narrow in names:
            assert contains(broad, narrow) == (common(broad, narrow) == narrow)
    assert not contains("*.a.com", "a.com")
    assert not contains("*.a.com", "ba.com")
