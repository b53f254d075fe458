"""Which instances are on a store now, which of them leads, and how far their proxies are.

In: what a back end reads of the others, what this instance has to say. Out: who is alive; chores that only one does.
Never: a clock, or a word to PostgreSQL: back ends that have one instance leave this as it is made, alone and leading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Member:
    """Another instance: the revision that it wants to be told of, the one that its proxies have, and how many are
    connected to it, which moves all the time and is no news.
    """

    asked: int
    converged: int
    proxies: int = field(default=0, compare=False)


class Members:
    """The instances of one store as one of them sees them. Belongs to one event loop.

    Leading is a courtesy, not a lock: for a moment two may believe that they lead, so that what a leader writes carries
    the revisions that it rests on.
    """

    def __init__(self, own: str = "", *, is_alone: bool = True) -> None:
        self.own = own
        self.others: Mapping[str, Member] = {}
        """Those whose lease has not run out."""
        self.is_leading = is_alone
        self.is_settled = is_alone
        """Whether who is not among the others is dead: not before one has been looking for the time of a lease."""
        self.changes = 0
        """How often something has changed."""
        self.asked = 0
        self.converged = 0
        self.count_proxies: Callable[[], int] = int
        """How many proxies are connected to this instance, for the others to know."""
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._news: Callable[[], None] | None = None

    @property
    def is_alone(self) -> bool:
        """Whether nobody else is there, for certain."""
        return self.is_settled and not self.others

    def is_dead(self, instance: str) -> bool:
        """Whether an instance is known to be gone."""
        return self.is_settled and instance != self.own and instance not in self.others

    def tell(self, news: Callable[[], None]) -> None:
        """Have `news` called when this instance has something to say to the others."""
        self._news = news

    def see(self, others: Mapping[str, Member], *, is_leading: bool, is_settled: bool) -> None:
        """Take in what a back end has found."""
        self._looked.set()
        self._looked = asyncio.Event()
        if (others, is_leading, is_settled) == (self.others, self.is_leading, self.is_settled):
            self.others = dict(others)
            return
        self.others, self.is_leading, self.is_settled = dict(others), is_leading, is_settled
        self.changes += 1
        self._wake()

    async def change(self) -> None:
        """Return after the next change, or earlier."""
        await self._changed.wait()

    async def look(self) -> None:
        """Return when a back end has looked for the others once more."""
        await self._looked.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def lead(self, chore: Callable[[], Coroutine[object, object, None]]) -> None:
        """Do a chore for as long as this instance leads, and again whenever it comes to lead, until cancelled.

        A chore that ends by itself is done until the lead is lost.
        """
        while True:
            while not self.is_leading:
                await self.change()
            work = asyncio.create_task(chore(), name="chore of the leader")
            work.add_done_callback(lambda _: self._wake())
            try:
                while self.is_leading:
                    if work.done():
                        work.result()
                    await self.change()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def want(self, revision: int) -> None:
        """Have the others tell when their proxies have what is stored at a revision."""
        if revision > self.asked:
            self.asked = revision
            self._say()

    async def all_converged(self, revision: int) -> None:
        """Return when the proxies of all others have what is stored at a revision."""
        self.want(revision)
        while not self.is_settled or any(member.converged < revision for member in self.others.values()):
            await self.change()

    @property
    def wanted(self) -> int:
        """The newest revision of which somebody else wants to know whether our proxies have it."""
        return max((member.asked for member in self.others.values()), default=0)

    def have_converged(self, revision: int) -> None:
        """Say that all proxies of this instance have what is stored at a revision."""
        if revision > self.converged:
            self.converged = revision
            self._say()

    def _say(self) -> None:
        if self._news is not None:
            self._news()
