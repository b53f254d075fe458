"""Mappings and indexes over others, against plain ones that were copied."""

from __future__ import annotations

import random

import pytest

from kumafast import TagIndex, TagSelector, TagSet
from kumafast.registry.overlay import IndexOverlay, Overlay

SELECTORS = [TagSelector({}), TagSelector({"a": "*"}), TagSelector({"a": "1"}), TagSelector({"a": "2", "b": "1"})]


def random_tags(rng: random.Random) -> list[TagSet]:
    return [TagSet({key: rng.choice("12") for key in "ab" if rng.random() < 0.7}) for _ in range(rng.randrange(3))]


@pytest.mark.parametrize("seed", range(50))
def test_an_overlay_is_a_copy_that_was_changed(seed: int) -> None:
    rng = random.Random(seed)
    beneath = {number: [number] for number in range(rng.randrange(6))}
    was = {key: list(value) for key, value in beneath.items()}
    overlay, copied = Overlay(beneath, copy=list.copy), {key: list(value) for key, value in beneath.items()}
    for _ in range(30):
        key = rng.randrange(8)
        what = rng.choice(["set", "delete", "change", "pop", "default"])
        if what == "set":
            overlay[key] = copied[key] = [rng.randrange(100)]
            copied[key] = list(overlay[key])
        elif what == "delete" and key in copied:
            del overlay[key], copied[key]
        elif what == "change" and key in copied:
            overlay[key].append(1)
            copied[key].append(1)
        elif what == "pop":
            assert overlay.pop(key, None) == copied.pop(key, None)
        elif what == "default":
            assert overlay.setdefault(key, [7]) == copied.setdefault(key, [7])
        assert dict(overlay) == copied
        assert (len(overlay), key in overlay, overlay.get(key)) == (len(copied), key in copied, copied.get(key))
    assert beneath == was


def test_an_overlay_has_no_more_than_a_mapping_has() -> None:
    overlay = Overlay({"a": 1})
    del overlay["a"]
    with pytest.raises(KeyError):
        overlay["a"]
    with pytest.raises(KeyError):
        del overlay["a"]


@pytest.mark.parametrize("seed", range(50))
def test_an_index_over_another_is_one_that_was_copied(seed: int) -> None:
    rng = random.Random(seed)
    given = [(number, random_tags(rng)) for number in range(rng.randrange(6))]
    beneath, plain = TagIndex(given), TagIndex(given)
    was = [list(beneath.match(selector)) for selector in SELECTORS]
    overlay = IndexOverlay(beneath)
    for _ in range(20):
        number, tags = rng.randrange(8), random_tags(rng)
        if number not in plain:
            overlay.add(number, tags)
            plain.add(number, tags)
        elif rng.random() < 0.5:
            overlay.update(number, tags)
            plain.update(number, tags)
        else:
            overlay.remove(number)
            plain.remove(number)
        for selector in SELECTORS:
            found, expected = overlay.match(selector), plain.match(selector)
            assert list(found) == list(expected)
            assert found.to_array().tolist() == expected.to_array().tolist()
            assert (len(found), number in found) == (len(expected), number in expected)
    assert [list(beneath.match(selector)) for selector in SELECTORS] == was


def test_an_index_over_another_refuses_what_an_index_refuses() -> None:
    overlay = IndexOverlay(TagIndex([(1, TagSet({"a": "1"}))]))
    with pytest.raises(KeyError):
        overlay.add(1, TagSet())
    overlay.remove(1)
    for refused in (overlay.remove, lambda number: overlay.update(number, TagSet())):
        with pytest.raises(KeyError):
            refused(1)
