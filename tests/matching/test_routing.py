"""Where an outbound leads under a route: tags that it keeps, shares that add up, and nothing where nothing changes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kumafast.matching.backends import BackendPort
from kumafast.matching.merge import merge
from kumafast.matching.routing import Leg, RequestRule, Route, reached, route, there

A = (("kuma.io/service", "a"),)
A1 = (*A, ("version", "1"))
B = (("kuma.io/service", "b"),)


def to(service: str, **tags: str) -> dict[str, str]:
    return {"kuma.io/service": service, **tags}


def led(outbound: tuple[tuple[str, str], ...], **conf: Any) -> Route | None:
    return route(outbound, {"TrafficRoute": merge([conf])})


def share(weight: int, destination: dict[str, str]) -> dict[str, Any]:
    return {"weight": weight, "destination": destination}


def test_what_leads_where_its_tags_say_is_no_route() -> None:
    assert led(A) is None
    assert led(A, destination=to("*")) is None
    assert led(A, destination=to("a"), loadBalancer={"roundRobin": {}}) is None
    assert led(A1, destination=to("*", version="*")) is None
    assert led(A, split=[share(0, to("b"))]) is None
    assert led(A, split=[share(9, to("*")), share(1, to("a")), share(0, to("b"))]) is None


def test_a_destination_takes_the_tags_of_the_outbound_along() -> None:
    assert led(A1, destination=to("b")) == Route((Leg((*B, ("version", "1"))),))
    assert led(A1, destination=to("b", version="2")) == Route((Leg((*B, ("version", "2"))),))
    assert led(A1, destination=to("b", version="*")) == Route((Leg((*B, ("version", "1"))),))
    # Where the outbound has no such tag, any value will do, as if it were not named.
    assert led(A, destination=to("b", version="*")) == Route((Leg(B),))


def test_equal_destinations_share_their_weights_and_one_alone_has_all() -> None:
    assert led(A, split=[share(3, to("b")), share(1, to("*")), share(2, to("b"))]) == Route((Leg(B, 5), Leg(A, 1)))
    assert led(A, split=[share(3, to("b"))]) == Route((Leg(B),))


def test_rules_come_in_their_order_with_what_they_match() -> None:
    rules = [
        {"match": {"path": {"prefix": "/b"}}, "destination": to("b")},
        {"match": {"path": {"prefix": "/n"}}, "split": [share(0, to("b"))]},
        {"match": {"path": {"prefix": "/"}}, "modify": {"host": {"value": "x"}}, "split": [share(1, to("*"))]},
    ]
    found = led(A, destination=to("*"), http=rules)
    assert found is not None
    # A rule that leads nowhere is as good as none.
    assert [(rule.match["path"]["prefix"], rule.legs) for rule in found.rules] == [("/b", (Leg(B),)), ("/", (Leg(A),))]
    assert isinstance(found.rules[1], RequestRule)
    assert found.rules[1].modify == {"host": {"value": "x"}}
    assert found.destinations == (B, A)
    assert reached([(A, found), (A1, None)]) == {A, B, A1}


def test_what_is_asked_for_is_reached_too_where_a_service_may_not_be_there() -> None:
    # Once the port is gone, requests go to what was asked for, and whoever follows its endpoints must know that.
    port = BackendPort("MeshService", "api", 80)
    led_to_port = Route((Leg(port),))
    assert reached([(A, led_to_port)]) == {A, port}
    assert there(led_to_port, A, lambda _: False) == Route((Leg(A),))
    assert reached([(A, Route((Leg(B),)))]) == {B}


_services = st.sampled_from(["a", "b", "*"])
_tags = st.builds(
    lambda service, rest: {"kuma.io/service": service, **rest},
    _services,
    st.dictionaries(st.sampled_from(["version", "zone"]), st.sampled_from(["1", "2", "*"])),
)
_split = st.lists(st.builds(share, st.integers(0, 3), _tags), max_size=4)
_outbounds = st.dictionaries(st.sampled_from(["version", "zone"]), st.sampled_from(["1", "2"])).map(
    lambda rest: tuple(sorted({"kuma.io/service": "a", **rest}.items()))
)


@given(_outbounds, _split)
def test_shares_are_those_of_the_destinations(outbound: tuple[tuple[str, str], ...], split: list[Any]) -> None:
    expected: dict[tuple[tuple[str, str], ...], int] = {}
    for each in split:
        named = {key: value for key, value in each["destination"].items() if value != "*"}
        tags = tuple(sorted({**dict(outbound), **named}.items()))
        expected[tags] = expected.get(tags, 0) + each["weight"]
    total = sum(expected.values()) or 1
    found = led(outbound, split=split)
    legs = (Leg(outbound),) if found is None else found.legs
    whole = sum(leg.weight for leg in legs)
    shares = {leg.destination: leg.weight / whole for leg in legs}
    assert shares == ({tags: w / total for tags, w in expected.items() if w} or {outbound: 1.0})
