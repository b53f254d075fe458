"""Changes on their way to those whom they affect: who has which, and since when.

In: changes with whom they affect and how that shows; each resource that an Envoy is sent. Out: when each change was
where, and what has not arrived. Never: clocks, sockets, or whom a change affects; that says whoever makes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from bench.real_wires.simulated_envoy import Facts

Shows = Callable[[Facts], bool]


@dataclass(slots=True, eq=False)
class Awaited:
    """A change on its way to those whom it affects."""

    kind: str
    type_url: str
    resource: str
    """The name of the resource in which it shows."""
    shows: Shows
    waiting: set[str]
    """The node ids that lack it."""
    started: float
    returned: float = 0.0
    """The monotonic seconds at which the write was sent, and at which its answer was there."""
    arrivals: list[float] = field(default_factory=list)

    def arrive(self, node_id: str, at: float) -> bool:
        """A node has it; False where it was not waited for."""
        if node_id not in self.waiting:
            return False
        self.waiting.discard(node_id)
        self.arrivals.append(at)
        return True


class Arrivals:
    """The changes that have not arrived everywhere. A resource costs a look-up, and one for each change of it."""

    def __init__(self) -> None:
        self.last = 0.0
        """When a resource has come last, in monotonic seconds."""
        self._awaited: defaultdict[tuple[str, str], list[Awaited]] = defaultdict(list)

    def expect(self, awaited: Awaited) -> None:
        """Follow a change from now on."""
        if awaited.waiting:
            self._awaited[awaited.type_url, awaited.resource].append(awaited)

    def forget(self, node_ids: Collection[str]) -> None:
        """These have gone: nothing is waited for of them."""
        for key, group in tuple(self._awaited.items()):
            for awaited in group:
                awaited.waiting.difference_update(node_ids)
            remaining = [awaited for awaited in group if awaited.waiting]
            if remaining:
                self._awaited[key] = remaining
            else:
                del self._awaited[key]

    def missing(self) -> list[Awaited]:
        """The changes that have not arrived everywhere."""
        return [awaited for group in self._awaited.values() for awaited in group]

    def take(self, node_id: str, type_url: str, name: str, facts: Facts, at: float) -> list[Awaited]:
        """A node has been sent a resource; which changes have arrived with that."""
        self.last = at
        group = self._awaited.get((type_url, name))
        if not group:
            return []
        arrived = [awaited for awaited in group if awaited.shows(facts) and awaited.arrive(node_id, at)]
        remaining = [awaited for awaited in group if awaited.waiting]
        if remaining:
            self._awaited[type_url, name] = remaining
        else:
            del self._awaited[type_url, name]
        return arrived
