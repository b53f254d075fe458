"""What a client asks for of one type on one stream.

In: the names of its requests. Out: whether all is asked for (`*`), and which names. Never: what it has been sent.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

WILDCARD = "*"

_Value = TypeVar("_Value")


class Subscription:
    """The wildcard and names of one type; both count at once (rule 30). Names are opaque, matched exactly (rule 34)."""

    __slots__ = ("_is_legacy", "is_wildcard", "names")

    def __init__(self) -> None:
        # A client that has never given a name means everything (rule 24); once it has, no name means nothing (rule 25).
        self._is_legacy = True
        self.is_wildcard = True
        # Names in the order in which they came, so that answers do not depend on the hash seed.
        self.names: dict[str, None] = {}

    def copy(self) -> Subscription:
        """Another that asks for the same."""
        twin = Subscription()
        twin._is_legacy, twin.is_wildcard, twin.names = self._is_legacy, self.is_wildcard, self.names.copy()
        return twin

    def key(self) -> Hashable:
        """What is equal for those that ask for the same, in the same order."""
        return (self._is_legacy, self.is_wildcard, tuple(self.names))

    def __contains__(self, name: object) -> bool:
        return self.is_wildcard or name in self.names

    def __bool__(self) -> bool:
        return self.is_wildcard or bool(self.names)

    def replace(self, names: Collection[str]) -> bool:
        """SotW: the list is the whole subscription (rule 26). Returns whether it asks for anything new."""
        if not names and self._is_legacy:
            return False
        was_wildcard, known = self.is_wildcard, self.names
        self._is_legacy = False
        self.is_wildcard = WILDCARD in names
        self.names = dict.fromkeys(name for name in names if name != WILDCARD)
        return (self.is_wildcard and not was_wildcard) or any(name not in known for name in self.names)

    def alter(self, *, subscribe: Iterable[str], unsubscribe: Iterable[str]) -> list[str]:
        """Delta: names add up and are taken away (rule 27). Returns the names that were asked for and no longer are."""
        subscribe = tuple(subscribe)
        if subscribe and self._is_legacy:
            self._is_legacy = self.is_wildcard = False
        dropped = []
        for name in unsubscribe:
            if name == WILDCARD:
                self.is_wildcard = self._is_legacy = False
            elif name in self.names:
                del self.names[name]
                dropped.append(name)
        for name in subscribe:
            if name == WILDCARD:
                self.is_wildcard = True
            else:
                self.names[name] = None
        return dropped

    def select(self, resources: Mapping[str, _Value]) -> Mapping[str, _Value]:
        """Of what there is, what is asked for; the same object where that is everything."""
        if self.is_wildcard:
            return resources
        return {name: resources[name] for name in self.names if name in resources}
