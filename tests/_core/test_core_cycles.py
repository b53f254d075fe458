"""What is untracked is not walked through, is freed as ever, and comes back where it changes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from kumafast._core import untrack, untrack_value


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


class Node:
    """One that may refer to others."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


def test_a_value_is_untracked_with_all_that_it_is_made_of() -> None:
    tags: dict[str, Any] = {"a": ("b", ["c"])}
    inner = Node(tags=tags)
    parts = ({"x": inner}, {inner})
    outer = Node(inner=inner, parts=parts, kind=Node)
    untrack_value(outer)
    found = [outer, inner, tags, tags["a"], tags["a"][1], parts, *parts]
    assert not any(map(gc.is_tracked, found))
    # Its class is everybody's.
    assert gc.is_tracked(Node)
    seen = weakref.ref(inner)
    del outer, inner, parts, found
    assert seen() is None


def test_a_value_that_is_deeper_than_anybody_nests_is_untracked_as_far_as_that() -> None:
    value: list[Any] = []
    deepest = value
    for _ in range(10_000):
        deepest.append([])
        deepest = deepest[0]
    untrack_value(value)
    assert not gc.is_tracked(value)
    assert gc.is_tracked(deepest)
    untrack_value(None)
