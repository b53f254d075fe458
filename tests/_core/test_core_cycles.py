"""What is untracked is not walked through, is freed as ever, and comes back where it changes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from kumafast._core import untrack


class Slotted:
    __slots__ = ("__weakref__", "held")

    def __init__(self, held: object) -> None:
        self.held = held


@pytest.mark.parametrize("make", [lambda: ([],), lambda: {"a": []}, lambda: [[]], lambda: {1}, lambda: Slotted([])])
def test_an_untracked_object_is_not_looked_at(make: Any) -> None:
    one = make()
    gc.collect()
    assert gc.is_tracked(one)
    untrack(one, one)
    assert not gc.is_tracked(one)
    gc.collect()
    assert not gc.is_tracked(one)


def test_an_untracked_object_is_freed_with_its_last_reference() -> None:
    inner = Slotted(None)
    outer = Slotted((inner,))
    dead = [weakref.ref(outer), weakref.ref(inner)]
    untrack(outer, outer.held)
    del inner, outer
    assert [each() for each in dead] == [None, None]


def test_what_an_untracked_object_refers_to_stays() -> None:
    outer = Slotted(None)
    inner = Slotted([outer.held])
    outer.held = inner
    untrack(outer)
    kept = weakref.ref(inner)
    del inner
    gc.collect()
    assert kept() is outer.held


def test_a_dict_that_changes_comes_back() -> None:
    one: dict[str, object] = {"a": []}
    untrack(one)
    one["b"] = []
    assert gc.is_tracked(one)


def test_what_the_collector_knows_nothing_of_is_left_alone() -> None:
    untrack()
    untrack(1, "a", b"a", 1.5, None, True, int, len, object())
    assert gc.is_tracked([])
