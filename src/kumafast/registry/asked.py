"""What outbounds ask for by their tags, worked out once for each list of them.

In: the outbounds of dataplanes. Out: their destinations. Never: what a reference stands for, as services come and go.

Dataplanes that are read together share their outbounds where these are equal (`resources.document.Decoder`), so that a
list is known by the identity of what is in it: to compare two would cost as much as to look at one.
"""

from __future__ import annotations

from kumafast.registry.reach import Destination, destination_of
from kumafast.resources.networking import Outbound

LISTS_MAX = 2_048
"""How many lists are remembered; then the oldest is forgotten."""


class Asked:
    """A memory of lists of outbounds."""

    def __init__(self) -> None:
        # By identities; the list is kept, or others might come to be at their places.
        self._known: dict[tuple[int, ...], tuple[tuple[Outbound, ...], tuple[Destination, ...] | None]] = {}

    def by_tags(self, outbounds: tuple[Outbound, ...]) -> tuple[Destination, ...] | None:
        """What they ask for, each once in its order; None where one of them is a reference."""
        key = tuple(map(id, outbounds))
        known = self._known.get(key)
        if known is not None:
            return known[1]
        found: tuple[Destination, ...] | None = None
        if all(outbound.backend_ref is None for outbound in outbounds):
            tagged = (outbound.destination_tags for outbound in outbounds)
            found = tuple(dict.fromkeys(destination_of(tags) for tags in tagged if tags))
        if len(self._known) >= LISTS_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = (outbounds, found)
        return found


ASKED = Asked()
