"""Batches run beside each other and beside the one writer; a reader sees a change wholly or not at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from tests._core.worlds import rows_of

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet

BLUE, GREEN = TagSet({"colour": "blue", "app": "web"}), TagSet({"colour": "green", "app": "web"})
COLOURS = SelectorSet([(1, TagSelector({"colour": "blue"})), (2, TagSelector({"colour": "green"}))])


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_batches_in_several_threads_are_equal() -> None:
    index = TagIndex((id, BLUE if id % 3 else GREEN) for id in range(20_000))
    with ThreadPoolExecutor(4) as pool:
        found = [rows_of(matches) for matches in pool.map(index.match_all, [COLOURS] * 16)]
    assert found == [found[0]] * 16
    assert [len(row) for row in found[0].values()] == [13_333, 6_667]


def test_others_run_while_a_batch_does() -> None:
    """Counted, so that it holds on a busy machine: no thread is ever made to yield here, yet this one makes turns."""
    sys.setswitchinterval(1_000)
    index = TagIndex((id, BLUE if id % 3 else GREEN) for id in range(50_000))
    many = SelectorSet((id, TagSelector({"colour": "blue", "app": "*"})) for id in range(300))
    turns, seen = 0, []

    def batch() -> None:
        for _ in range(20):
            before = turns
            index.match_all(many)
            seen.append(turns - before)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(batch)
        while not running.done():
            turns += 1
            time.sleep(0)
        running.result()
    assert sum(seen) > 20


def test_a_writer_beside_readers() -> None:
    """Each dataplane is always blue or green, never neither or both."""
    size = 3_000
    index = TagIndex((id, BLUE) for id in range(size))
    done = Event()

    def read() -> int:
        turns = 0
        while not done.is_set() or turns == 0:
            rows = rows_of(index.match_all(COLOURS))
            assert sorted(rows[1] + rows[2]) == list(range(size))
            assert len(index.affected(TagSelector({"colour": "blue"}), TagSelector({"colour": "green"}))) == size
            assert len(index.match(TagSelector({"app": "web"}))) == size
            turns += 1
        return turns

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        end = time.monotonic() + 1.0
        changes = 0
        while time.monotonic() < end:
            index.update(changes % size, GREEN if changes // size % 2 == 0 else BLUE)
            changes += 1
        done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert changes > 0


def test_tags_are_made_and_freed_in_several_threads() -> None:
    def churn(worker: int) -> None:
        for turn in range(3_000):
            tags = TagSet({f"key-{turn % 10}": f"value-{turn % 50}", "worker": str(worker)})
            assert tags.as_dict() == {f"key-{turn % 10}": f"value-{turn % 50}", "worker": str(worker)}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
