"""The registry's structures over others that stay as they are: what is changed here is seen here alone.

In: a mapping or an index that somebody else owns. Out: the same to read, and changes at the cost of what they concern.
Never: a copy of the whole. It holds for as long as what lies beneath does not change.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TypeAlias, TypeVar

from kumafast._core import IdSet, TagIndex, TagSelector, TagSet

K = TypeVar("K")
V = TypeVar("V")


class Overlay(MutableMapping[K, V]):
    """A mapping over another. Where values are changed in place, `copy` makes one of our own of each that is looked at.

    >>> beneath = {"a": 1, "b": 2}
    >>> above = Overlay(beneath)
    >>> above["c"] = 3
    >>> del above["a"]
    >>> sorted(above.items()), sorted(beneath.items())
    ([('b', 2), ('c', 3)], [('a', 1), ('b', 2)])
    """

    __slots__ = ("_beneath", "_copy", "_gone", "_own")

    def __init__(self, beneath: Mapping[K, V], *, copy: Callable[[V], V] | None = None) -> None:
        self._beneath = beneath
        self._copy = copy
        self._own: dict[K, V] = {}
        self._gone: set[K] = set()

    def __getitem__(self, key: K) -> V:
        if key in self._own:
            return self._own[key]
        if key in self._gone:
            raise KeyError(key)
        value = self._beneath[key]
        if self._copy is not None:
            value = self._own[key] = self._copy(value)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._own[key] = value
        self._gone.discard(key)

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        if key in self._beneath:
            self._gone.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key not in self._gone and key in self._beneath)

    def __iter__(self) -> Iterator[K]:
        yield from (key for key in self._beneath if key not in self._gone)
        yield from (key for key in self._own if key not in self._beneath)

    def __len__(self) -> int:
        return len(self._beneath) - len(self._gone) + sum(1 for key in self._own if key not in self._beneath)


class OverlaidIds:
    """Ids from two indexes, some of the first left out; ascending, as an `IdSet` is."""

    __slots__ = ("_array", "_ids")

    def __init__(self, ids: set[int]) -> None:
        self._ids = ids
        self._array = array("I", sorted(ids))

    def to_array(self) -> memoryview[int]:
        """The ids, format "I"."""
        return memoryview(self._array)

    def __iter__(self) -> Iterator[int]:
        return iter(self._array)

    def __len__(self) -> int:
        return len(self._array)

    def __contains__(self, id: object) -> bool:
        return id in self._ids


class IndexOverlay:
    """A `TagIndex` over another. O(what is changed), and of a match what it finds."""

    __slots__ = ("_beneath", "_hidden", "_own")

    def __init__(self, beneath: TagIndex) -> None:
        self._beneath = beneath
        # The ids beneath that have other tags here, or none.
        self._hidden: set[int] = set()
        self._own = TagIndex()

    def add(self, id: int, inbounds: TagSet | Sequence[TagSet]) -> None:
        """As `TagIndex.add`."""
        if id in self:
            raise KeyError(id)
        self._own.add(id, inbounds)

    def update(self, id: int, inbounds: TagSet | Sequence[TagSet]) -> None:
        """As `TagIndex.update`."""
        self.remove(id)
        self._own.add(id, inbounds)

    def remove(self, id: int) -> None:
        """As `TagIndex.remove`."""
        if id in self._own:
            self._own.remove(id)
        elif id in self:
            self._hidden.add(id)
        else:
            raise KeyError(id)

    def match(self, selector: TagSelector) -> IdSet | OverlaidIds:
        """As `TagIndex.match`."""
        beneath = self._beneath.match(selector)
        if not self._hidden and not len(self._own):
            return beneath
        return OverlaidIds({*(id for id in beneath if id not in self._hidden), *self._own.match(selector)})

    def __contains__(self, id: object) -> bool:
        return id in self._own or (id in self._beneath and id not in self._hidden)


Index: TypeAlias = TagIndex | IndexOverlay
Ids: TypeAlias = IdSet | OverlaidIds
