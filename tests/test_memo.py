"""Results are kept while they are asked for, and no longer: counted in calls of what computes them."""

from __future__ import annotations

import pytest

from kumafast import memo
from kumafast.memo import DATAPLANE, GENERATION, POLICY, note_change, remembered


@pytest.fixture(autouse=True)
def _own_memos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the process are left alone, and it counts from nothing."""
    monkeypatch.setattr(memo, "_MEMOS", [])
    monkeypatch.setattr(memo, "_changed", 0)


class Counted:
    def __init__(self, entries_max: int = 100) -> None:
        self.calls: list[int] = []
        self.square = remembered(entries_max)(self._square)

    def _square(self, number: int) -> int:
        self.calls.append(number)
        return number * number


def _a_generation() -> None:
    for _ in range(GENERATION // POLICY):
        note_change(POLICY)


def test_what_was_asked_is_not_computed_again() -> None:
    counted = Counted()
    assert [counted.square(number) for number in (2, 3, 2, 3)] == [4, 9, 4, 9]
    assert counted.calls == [2, 3]


def test_what_is_asked_in_each_generation_is_kept() -> None:
    counted = Counted()
    for _ in range(5):
        counted.square(2)
        _a_generation()
    assert counted.calls == [2]


def test_what_nobody_asks_for_goes_after_two() -> None:
    counted = Counted()
    counted.square(2)
    _a_generation()
    counted.square(3)
    _a_generation()
    assert counted.square(3) == 9
    assert counted.calls == [2, 3]
    assert counted.square(2) == 4
    assert counted.calls == [2, 3, 2]


def test_dataplanes_count_less_than_policies() -> None:
    counted = Counted()
    counted.square(2)
    for _ in range(2 * GENERATION // DATAPLANE - 1):
        note_change(DATAPLANE)
    counted.square(2)
    assert counted.calls == [2]


def test_there_is_a_bound_besides() -> None:
    counted = Counted(entries_max=2)
    for number in (1, 2, 3, 1):
        counted.square(number)
    assert counted.calls == [1, 2, 3, 1]


def test_an_error_is_not_kept() -> None:
    calls = []

    @remembered(10)
    def fail(number: int) -> int:
        calls.append(number)
        raise ValueError(number)

    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            fail(7)
    assert calls == [7, 7]
