"""Python's collector as the server has it: short looks, and dead cycles go in the end, whenever they were made."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kumafast import garbage

ROOT = Path(__file__).resolve().parent.parent


class Cycle:
    """An object that refers to itself, with some weight."""

    def __init__(self) -> None:
        self.itself = self
        self.weight = [[number] for number in range(50)]


@pytest.fixture(autouse=True)
def begun() -> Iterator[None]:
    gc.collect()
    end = garbage.begin()
    yield
    end()
    gc.collect()


def test_what_dies_young_goes_by_itself() -> None:
    dead = []
    for _ in range(2_000):
        cycle = Cycle()
        dead.append(weakref.ref(cycle))
        del cycle
    assert sum(each() is not None for each in dead) < 200


def test_what_takes_the_place_of_other_things_is_looked_at_too() -> None:
    """As many objects go as come, so that Python itself would wait for ever."""
    place: dict[int, list[list[int]]] = {}
    longest = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal longest
        if phase == "start" and info["generation"] < 2:
            longest = max(longest, sum(map(len, map(gc.get_objects, (0, 1)))))

    gc.callbacks.append(note)
    try:
        for number in range(200_000):
            place[number % 20_000] = [[number]]
            garbage.made(2)
    finally:
        gc.callbacks.remove(note)
    assert 0 < longest <= 3 * garbage.YOUNG_MAX * garbage.MIDDLE_LOOKS


def test_what_was_kept_is_not_looked_at_again() -> None:
    kept = [Cycle() for _ in range(2_000)]
    gc.collect()
    assert gc.get_freeze_count() > 50 * len(kept)
    assert len(gc.get_objects()) < len(kept)


def test_what_was_kept_and_dies_is_found_when_all_is_looked_through() -> None:
    cycle = Cycle()
    gc.collect()
    dead = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert dead() is not None
    assert garbage.look_through_all() > 0
    assert dead() is None


@pytest.mark.parametrize("is_quiet", [True, False], ids=["quiet", "busy"])
def test_memory_does_not_grow_without_bound(is_quiet: bool) -> None:
    """Cycles that are kept and then die, for ever: at a quiet moment they go, and if there is none as well.

    In a process of its own: here every look would go through all that other tests have left.
    """
    code = f"from tests.test_garbage import check_growth; check_growth(is_quiet={is_quiet})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def check_growth(*, is_quiet: bool) -> None:
    """Fails unless what is dead and was kept goes in the end."""
    end = garbage.begin()
    with pytest.MonkeyPatch.context() as monkeypatch:
        _check_growth(monkeypatch, is_quiet)
    end()


def _check_growth(monkeypatch: pytest.MonkeyPatch, is_quiet: bool) -> None:
    # Whatever the process holds already: a share of it says little about what this test makes.
    monkeypatch.setattr(garbage, "GROWTH_DUE", 1.0)
    monkeypatch.setattr(garbage, "GROWTH_MAX", 1.0)
    monkeypatch.setattr(garbage, "GROWTH_MIN_BLOCKS", 20_000)
    monkeypatch.setattr(garbage, "QUIET_S", 0.001)
    monkeypatch.setattr(garbage, "QUIET_SHARE", 1e9 if is_quiet else -1.0)
    looks = []
    look = garbage.look_through_all
    monkeypatch.setattr(garbage, "look_through_all", lambda: looks.append(look()))

    async def main() -> tuple[int, int]:
        following = asyncio.create_task(garbage.follow())
        await asyncio.sleep(0)
        made: list[weakref.ref[Cycle]] = []
        most = 0
        for _ in range(80):
            living = [Cycle() for _ in range(200)]
            made.extend(map(weakref.ref, living))
            gc.collect()
            del living
            await asyncio.sleep(0.002)
            most = max(most, sum(each() is not None for each in made))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        return len(made), most

    made, most = asyncio.run(main())
    assert sum(looks) > 0
    assert most < made // 2


async def _looks_of(monkeypatch: pytest.MonkeyPatch, happen: Callable[[list[int]], None]) -> int:
    """How often all was looked through because of what happens to the count of blocks, at 600,000 in the beginning."""
    blocks, looks = [600_000], 0

    def look() -> None:
        nonlocal looks
        looks += 1
        garbage._LOOKS.rest()

    monkeypatch.setattr(sys, "getallocatedblocks", lambda: blocks[0])
    monkeypatch.setattr(garbage, "look_through_all", look)
    following = asyncio.create_task(garbage.follow())
    await asyncio.sleep(0)
    happen(blocks)
    gc.collect()
    # A call from another thread, the task that it wakes, and its look.
    for _ in range(10):
        await asyncio.sleep(0.001)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return looks


@pytest.mark.anyio
async def test_a_crowd_that_comes_to_a_new_instance_is_no_cause_for_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_all_and_be_met(blocks: list[int]) -> None:
        blocks[0] = 1_300_000
        garbage.keep_what_is()
        for _ in range(4_000):
            garbage.came(300)
        blocks[0] = 2_700_000

    assert await _looks_of(monkeypatch, read_all_and_be_met) == 0


@pytest.mark.anyio
async def test_growth_that_stays_when_the_crowd_has_gone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def come_and_go(blocks: list[int]) -> None:
        for blocks_of_one in (300, -300):
            for _ in range(4_000):
                garbage.came(blocks_of_one)
        blocks[0] = 1_800_000

    assert await _looks_of(monkeypatch, come_and_go) == 1


def test_nothing_is_looked_at_while_much_is_read() -> None:
    with garbage.left_alone():
        garbage.made(10 * garbage.YOUNG_MAX)
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_end_leaves_python_as_it_was() -> None:
    before = gc.get_threshold()
    garbage.begin()()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


MAPPED_AGAIN = """
import ctypes, sys
from kumafast import garbage

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
if "told" in sys.argv:
    garbage.return_large()
before = mallinfo().hblkhd
answer = bytes(4 << 20)
del answer
answer = bytes(4 << 20)
held = mallinfo().hblkhd - before
del answer
print(held >> 20, mallinfo().hblkhd - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library than a new glibc")
@pytest.mark.parametrize(("told", "said"), [("told", "4 0"), ("untold", "0 0")])
def test_large_answers_do_not_make_the_heap_longer(told: str, said: str) -> None:
    """Each is a mapping of its own, not only the first; the second row is what the C library does by itself."""
    done = subprocess.run(
        [sys.executable, "-c", MAPPED_AGAIN, told], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == said
