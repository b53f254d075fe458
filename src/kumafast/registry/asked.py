"""What outbounds ask for by their tags, worked out once for each list of them.

In: the outbounds of dataplanes. Out: their destinations. Never: what a reference stands for, as services come and go;
outbounds that no dataplane has any more.

Dataplanes that are read together share their outbounds where these are equal (`resources.document.Decoder`), so that a
list is known by the first of them: to look at them all would cost as much as to work it out.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import KeyedRef

from kumafast.registry.reach import Destination, destination_of
from kumafast.resources.networking import Outbound

LISTS_MAX = 2_048
"""How many lists are remembered; then the oldest is forgotten."""


class _Known(NamedTuple):
    """A list, and what it asks for. It goes with its first outbound, which is not held here."""

    first: KeyedRef[int, Outbound]
    others: tuple[Outbound, ...]
    found: tuple[Destination, ...] | None


class Asked:
    """A memory of lists of outbounds, each for as long as a dataplane has it."""

    def __init__(self) -> None:
        # By the identity of the first, which nothing else can have while it lives.
        self._known: dict[int, _Known] = {}

    def by_tags(self, outbounds: tuple[Outbound, ...]) -> tuple[Destination, ...] | None:
        """What they ask for, each once in its order; None where one of them is a reference."""
        if not outbounds:
            return ()
        first, others = outbounds[0], outbounds[1:]
        key = id(first)
        known = self._known.get(key)
        # Of lists that are shared the others are the very same, which is seen without a look at what is in them.
        if known is not None and known.first() is first and known.others == others:
            return known.found
        found: tuple[Destination, ...] | None = None
        if all(outbound.backend_ref is None for outbound in outbounds):
            tagged = (outbound.destination_tags for outbound in outbounds)
            found = tuple(dict.fromkeys(destination_of(tags) for tags in tagged if tags))
        if len(self._known) >= LISTS_MAX:
            # The last reference to it may go in any thread, just now too.
            self._known.pop(next(iter(self._known)), None)
        self._known[key] = _Known(KeyedRef(first, self._forget, key), others, found)
        return found

    def _forget(self, dead: KeyedRef[int, Outbound]) -> None:
        self._known.pop(dead.key, None)


ASKED = Asked()
