"""Lists of outbounds that are looked at once."""

from __future__ import annotations

import weakref

import pytest

from kumafast.registry import asked
from kumafast.registry.asked import Asked
from kumafast.resources.networking import Outbound

WEB = Outbound.model_validate({"port": 1, "tags": {"kuma.io/service": "web"}})
API = Outbound.model_validate({"port": 2, "tags": {"version": "1", "kuma.io/service": "api"}})
API_TAGS = (("kuma.io/service", "api"), ("version", "1"))
BARE = Outbound.model_validate({"port": 3})
REFERRING = Outbound.model_validate({"port": 4, "backendRef": {"kind": "MeshService", "name": "web", "port": 80}})


def test_each_destination_is_there_once_in_its_order() -> None:
    found = Asked().by_tags((API, WEB, BARE, API))
    assert found == (API_TAGS, (("kuma.io/service", "web"),))


def test_the_same_outbounds_in_another_list_are_not_looked_at_again() -> None:
    memory = Asked()
    first = memory.by_tags((WEB, API))
    assert memory.by_tags((*[WEB], API)) is first
    assert memory.by_tags((API, WEB)) != first


def test_with_a_reference_nothing_is_known_by_tags() -> None:
    assert Asked().by_tags((WEB, REFERRING)) is None
    assert Asked().by_tags(()) == ()


def test_a_list_goes_with_the_last_dataplane_that_has_it() -> None:
    memory = Asked()
    outbounds = [Outbound.model_validate({"port": port, "tags": {"kuma.io/service": "web"}}) for port in (1, 2, 3)]
    lists = [(*outbounds,), (*outbounds,)]
    assert memory.by_tags(lists[0]) is memory.by_tags(lists[1])
    living = [weakref.ref(each) for each in outbounds]
    del outbounds, lists[0]
    assert all(each() is not None for each in living)
    lists.clear()
    assert [each() for each in living] == [None] * 3


def test_of_lists_that_begin_alike_each_has_what_it_asks_for() -> None:
    memory = Asked()
    for _ in range(2):
        assert memory.by_tags((WEB, API)) == ((("kuma.io/service", "web"),), API_TAGS)
        assert memory.by_tags((WEB,)) == ((("kuma.io/service", "web"),),)
        assert memory.by_tags((WEB, REFERRING)) is None


def test_it_forgets_and_is_not_deceived_by_what_comes_to_be_in_the_place_of_the_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asked, "LISTS_MAX", 3)
    memory = Asked()
    for number in range(1_000):
        outbound = Outbound.model_validate({"port": 1, "tags": {"kuma.io/service": f"s-{number}"}})
        assert memory.by_tags((outbound,)) == ((("kuma.io/service", f"s-{number}"),),)
        del outbound
