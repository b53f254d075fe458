"""Numbers for keys, as the compiled indexes want them.

In: keys that come and go. Out: a number for each; numbers are used again, so that an index stays dense however long the
process lives. Never: two keys of one number.
"""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from typing import Generic, TypeVar

from kumafast.registry.overlay import Overlay

K = TypeVar("K", bound=Hashable)


class Numbers(Generic[K]):
    """Which key has which number.

    >>> numbers = Numbers[str]()
    >>> numbers.add("a"), numbers.add("b"), numbers.find("c")
    (0, 1, None)
    """

    __slots__ = ("_free", "_keys", "_next", "_numbers")

    def __init__(self) -> None:
        self._numbers: MutableMapping[K, int] = {}
        self._keys: MutableMapping[int, K] = {}
        self._next = 0
        self._free: list[int] = []

    def fork(self) -> Numbers[K]:
        """The same, to be changed on its own; good until this changes."""
        forked = Numbers[K]()
        forked._numbers, forked._keys = Overlay(self._numbers), Overlay(self._keys)
        # What comes gets new numbers: those that are free here are a list that is not to be copied.
        forked._next = self._next
        return forked

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, key: K) -> int | None:
        """The number of a key; None where it has none."""
        return self._numbers.get(key)

    def key(self, number: int) -> K:
        """The key of a number. Raises KeyError."""
        return self._keys[number]

    def add(self, key: K) -> int:
        """Give a key a number that it has not got yet."""
        number = self._free.pop() if self._free else self._next
        self._next = max(self._next, number + 1)
        self._numbers[key], self._keys[number] = number, key
        return number

    def remove(self, key: K) -> None:
        """Take a key's number away. Raises KeyError where it has none."""
        number = self._numbers.pop(key)
        del self._keys[number]
        self._free.append(number)
