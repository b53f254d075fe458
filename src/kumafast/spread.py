"""How proxies spread over instances: who has more than its soft limit sends some of them away, while others have room.

In: how many proxies each instance has. Out: how many are to leave this one now. Never: proxies sent away to where there
is no room, so that where all are full nobody is disturbed; which ones leave, or where they come to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from kumafast.store.members import Members

SHARE = 0.02
"""Of the limit so many leave at most from one look at the others to the next, one at least."""

Shed = Callable[[int], Awaitable[object]]


def excess(own: int, others: Iterable[int], *, limit: int) -> int:
    """How many proxies an instance has beyond a limit, as far as others have room for them, and for those of all.

    >>> excess(150, [60], limit=100)
    40
    >>> excess(150, [110, 70], limit=100)
    25
    >>> excess(150, [120], limit=100)
    0
    """
    counts = list(others)
    surplus = max(own - limit, 0)
    room = sum(max(limit - count, 0) for count in counts)
    wanting = surplus + sum(max(count - limit, 0) for count in counts)
    return min(surplus, room * surplus // wanting) if surplus else 0


async def follow(members: Members, *, limit: int, shed: Shed) -> None:
    """Send proxies away as long as there are too many here and room elsewhere, some after each look; until cancelled.

    A limit of 0 is none.
    """
    while limit:
        await members.look()
        counts = [member.proxies for member in members.others.values()]
        leaving = excess(members.count_proxies(), counts, limit=limit)
        if leaving:
            await shed(min(leaving, max(1, int(limit * SHARE))))
