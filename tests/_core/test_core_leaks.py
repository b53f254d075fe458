"""Nothing is kept that nobody holds: tags are counted and freed, also after errors and in any order."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet, live_tags

ROOT = Path(__file__).resolve().parents[2]


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


def churn(alive: int, steps: int) -> None:
    """Twice the same tags are the same ids, whichever neighbours came and went in the table's probe runs."""
    random = Random(f"table {alive}")
    before = live_tags()
    held: list[tuple[str, TagSet]] = []
    for step in range(steps):
        if len(held) < alive:
            held.append((f"leak-{step}", TagSet({"leak": f"leak-{step}"})))
        else:
            held.pop(random.randrange(alive))
        value, tags = random.choice(held)
        assert TagSet({"leak": value}) == tags
    assert live_tags() == before + 1 + len(held)
    assert all(TagSet({"leak": value}) == tags for value, tags in held)


def test_the_table_finds_each_tag_after_any_order_of_frees() -> None:
    churn(alive=3_000, steps=30_000)


@pytest.mark.parametrize("seed", range(4))
def test_so_does_a_table_as_small_as_at_the_start(seed: int) -> None:
    """In a process of its own: there the table has 64 places, and runs across its end are common."""
    program = "from tests._core.test_core_leaks import churn; churn(alive=28, steps=20_000)"
    command = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", program]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": str(seed)}, check=True)


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
    order = sorted(range(64_000), key=lambda id: id % 1_000 == 0)
    for id in order[:-510]:
        index.remove(id)
    before = sys.getsizeof(index)
    for id in order[-510:-490]:
        index.remove(id)
    # Three postings (the tag, its key, everybody) of 8,000 bytes of bits become arrays of 500 ids.
    assert before - sys.getsizeof(index) > 3 * 5_000
    assert list(index.match(TagSelector({"leak": "*"}))) == sorted(order[-490:])
