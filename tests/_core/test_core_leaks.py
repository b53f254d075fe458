"""Nothing is kept that nobody holds: tags are counted and freed, also after errors and in any order."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet, live_tags


@pytest.fixture(autouse=True)
def no_tag_left() -> Iterator[None]:
    gc.collect()
    before = live_tags()
    yield
    gc.collect()
    assert live_tags() == before


def test_tag_sets_share_and_free_their_tags() -> None:
    before = live_tags()
    one = TagSet({"leak-a": "1", "leak-b": "1"})
    assert live_tags() == before + 4
    two = TagSelector({"leak-a": "*", "leak-b": "1"})
    assert live_tags() == before + 4
    three = TagSelector({"leak-a": "2"})
    assert live_tags() == before + 5
    del one
    assert live_tags() == before + 4
    assert two.as_dict() == {"leak-a": "*", "leak-b": "1"}
    del two, three
    assert live_tags() == before


def test_an_index_and_a_set_hold_what_they_need() -> None:
    index = TagIndex([(id, TagSet({"leak-id": str(id), "leak-same": "x"})) for id in range(1000)])
    selectors = SelectorSet([(id, TagSelector({"leak-id": str(id)})) for id in range(500, 1500)])
    assert [len(index.match(TagSelector({"leak-id": str(id)}))) for id in (0, 999, 1000)] == [1, 1, 0]
    for id in range(1000):
        index.update(id, TagSet({"leak-id": str(-id)}))
    assert len(index.match_all(selectors)) == 0
    for id in range(1000):
        index.remove(id)
    assert len(selectors.removed(range(2000)).added([(1, TagSelector({"leak-z": "z"}))])) == 1


def test_recycled_ids_do_not_mix_tags_up() -> None:
    index = TagIndex()
    for turn in range(200):
        index.add(turn % 7 + 10 * turn, TagSet({f"leak-{turn}": "v", "leak": str(turn)}))
        if turn >= 5:
            old = turn - 5
            index.remove(old % 7 + 10 * old)
            assert len(index.match(TagSelector({f"leak-{old}": "*"}))) == 0
        assert list(index.match(TagSelector({"leak": str(turn)}))) == [turn % 7 + 10 * turn]


def test_errors_on_the_way_keep_nothing() -> None:
    for bad in ({"leak-good": "x", "leak-bad": "\0"}, {"leak-good": "x", "leak-bad": "\ud800"}):
        with pytest.raises(ValueError, match=r"NUL|surrogates"):
            TagSet(bad)
    with pytest.raises(KeyError):
        TagIndex([(1, TagSet({"leak": "1"})), (1, TagSet({"leak": "2"}))])


def test_one_far_id_costs_no_wide_bitset() -> None:
    tags = TagSet({"leak": "far"})
    index = TagIndex()
    for size in range(1, 200):
        index.add(2**32 - size if size % 2 else size, tags)
        assert sys.getsizeof(index) < 1_000 + 200 * size


def test_bits_become_an_array_again_when_few_are_left() -> None:
    tags = TagSet({"leak": "thin"})
    index = TagIndex((id, tags) for id in range(64_000))
    dense = sys.getsizeof(index)
    for id in range(64_000):
        if id % 1_000:
            index.remove(id)
    # Three postings (the tag, its key, everybody) of 8,000 bytes of bits each are gone, with the dataplanes.
    assert dense - sys.getsizeof(index) > 3 * 7_000 + 63_936 * 32
    assert list(index.match(TagSelector({"leak": "*"}))) == list(range(0, 64_000, 1_000))
