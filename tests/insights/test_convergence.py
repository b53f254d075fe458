"""Who has taken a revision: waits by events, names who is missing, does not wait for who refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kumafast.insights import Convergence, ConvergenceReport, Rejection
from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER
from kumafast.templates import Failure


@dataclass(frozen=True)
class Moment:
    revision: int
    at: float = 0.0


@dataclass
class Progress:
    revision: int = 0
    moments: dict[str, Moment] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    async def reached(self, revision: int) -> None:
        while self.revision < revision:
            await asyncio.sleep(0)

    def published(self, node_id: str) -> Moment | None:
        return self.moments.get(node_id)

    def failure(self, node_id: str) -> Failure | None:
        return self.failures.get(node_id)


class World:
    def __init__(self) -> None:
        self.cache = SnapshotCache()
        self.progress = Progress()
        self.convergence = Convergence(cache=self.cache, progress=self.progress)

    def publish(self, node_id: str, revision: int) -> Snapshot:
        snapshot = Snapshot.of(XdsResource(CLUSTER, "c", f"{node_id} {revision}".encode()))
        self.cache.set(node_id, snapshot)
        self.progress.moments[node_id] = Moment(revision)
        self.progress.revision = revision
        return snapshot

    async def wait(self, revision: int, *, timeout_s: float = 5, since: int | None = None) -> ConvergenceReport:
        return await self.convergence.wait(revision, timeout_s, since=since)


def test_it_returns_when_the_last_proxy_has_acknowledged() -> None:
    async def main() -> None:
        world = World()
        snapshots = {name: world.publish(name, 7) for name in ("a", "b")}
        for name in snapshots:
            world.convergence.stream_opened(name, Node(name))
        waiting = asyncio.create_task(world.wait(7))
        await asyncio.sleep(0.01)
        world.convergence.stream_synced("a", snapshots["a"])
        await asyncio.sleep(0.01)
        assert not waiting.done()
        world.convergence.stream_synced("b", snapshots["b"])
        report = await waiting
        assert report.is_converged
        assert (report.proxies, report.waiting, report.rejected) == (2, (), ())

    asyncio.run(main())


def test_it_waits_for_the_revision_to_be_published() -> None:
    async def main() -> None:
        world = World()
        report = await world.wait(3, timeout_s=0.02)
        assert not report.is_converged
        world.progress.revision = 3
        assert (await world.wait(3)).is_converged

    asyncio.run(main())


def test_when_time_runs_out_it_names_who_is_missing() -> None:
    async def main() -> None:
        world = World()
        world.publish("a", 1)
        world.convergence.stream_opened("s", Node("a"))
        report = await world.wait(1, timeout_s=0.02)
        assert (report.is_converged, report.waiting) == (False, ("a",))

    asyncio.run(main())


def test_a_refusal_is_reported_at_once_until_there_is_something_newer() -> None:
    async def main() -> None:
        world = World()
        refused = world.publish("a", 1)
        world.convergence.stream_opened("s", Node("a"))
        world.convergence.response_rejected("s", CLUSTER, refused.version(CLUSTER), "no such thing")
        report = await world.wait(1)
        assert (report.is_converged, report.waiting) == (False, ())
        assert report.rejected == (Rejection("a", CLUSTER, "no such thing"),)
        mended = world.publish("a", 2)
        assert (await world.wait(2, timeout_s=0.02)).waiting == ("a",)
        world.convergence.response_acknowledged("s", CLUSTER)
        world.convergence.stream_synced("s", mended)
        assert (await world.wait(2)).is_converged

    asyncio.run(main())


def test_who_leaves_is_not_waited_for() -> None:
    async def main() -> None:
        world = World()
        world.publish("a", 1)
        world.convergence.stream_opened("s", Node("a"))
        waiting = asyncio.create_task(world.wait(1))
        await asyncio.sleep(0.01)
        world.convergence.stream_closed("s")
        assert (await waiting).is_converged

    asyncio.run(main())


def test_only_those_whom_the_revision_moved_are_counted() -> None:
    async def main() -> None:
        world = World()
        old, new = world.publish("old", 1), world.publish("new", 5)
        for name, snapshot in (("old", old), ("new", new)):
            world.convergence.stream_opened(name, Node(name))
            world.convergence.stream_synced(name, snapshot)
        assert (await world.wait(5)).proxies == 1

    asyncio.run(main())


def test_of_several_writes_those_count_whom_the_first_moved() -> None:
    async def main() -> None:
        world = World()
        for name, revision in (("before", 3), ("first", 4), ("second", 5)):
            snapshot = world.publish(name, revision)
            world.convergence.stream_opened(name, Node(name))
            world.convergence.stream_synced(name, snapshot)
        world.progress.revision = 6
        counts = [(await world.wait(6, since=since)).proxies for since in (None, 5, 4, 1)]
        assert counts == [0, 1, 2, 3]

    asyncio.run(main())


def test_what_another_change_did_is_no_refusal_of_this_one() -> None:
    async def main() -> None:
        world = World()
        refused = world.publish("bad", 1)
        world.convergence.stream_opened("bad", Node("bad"))
        world.convergence.response_rejected("bad", CLUSTER, refused.version(CLUSTER), "no such thing")
        taken = world.publish("good", 2)
        world.convergence.stream_opened("good", Node("good"))
        world.convergence.stream_synced("good", taken)
        assert (await world.wait(2)).is_converged
        assert [each.node for each in (await world.wait(2, since=1)).rejected] == ["bad"]
        assert [each.node for each in world.convergence.rejections()] == ["bad"]

    asyncio.run(main())


def test_what_could_not_be_made_is_a_refusal_of_ours() -> None:
    async def main() -> None:
        world = World()
        held = world.publish("a", 1)
        world.convergence.stream_opened("s", Node("a"))
        world.convergence.stream_synced("s", held)
        failure = Failure("no such step", CLUSTER, "web", revision=2)
        world.progress.failures["a"] = failure
        world.progress.revision = 3
        report = await world.wait(2)
        assert (report.is_converged, report.waiting) == (False, ())
        assert report.rejected == (Rejection("a", CLUSTER, "no such step", failure),)
        # It was tried at the second revision, and the third is not about it.
        assert (await world.wait(3)).is_converged
        assert len(world.convergence.rejections()) == 1
        # A newcomer may have nothing at all.
        world.progress.failures["new"] = failure
        world.convergence.stream_opened("t", Node("new"))
        assert {each.node for each in (await world.wait(2)).rejected} == {"a", "new"}

    asyncio.run(main())


def test_waiting_for_many_costs_as_much_as_they_are_and_not_as_much_for_each() -> None:
    class Counted(SnapshotCache):
        looks = 0

        def get(self, key: str) -> Snapshot | None:
            self.looks += 1
            return super().get(key)

    async def main() -> None:
        world = World()
        cache = Counted()
        world.cache, world.convergence = cache, Convergence(cache=cache, progress=world.progress)
        names = [f"node-{number}" for number in range(300)]
        snapshots = {name: world.publish(name, 1) for name in names}
        for name in names:
            world.convergence.stream_opened(name, Node(name))
        waiting = asyncio.create_task(world.wait(1))
        for name in names:
            # The waiter has time to look after each.
            for _ in range(3):
                await asyncio.sleep(0)
            if name == names[-50]:
                # From here on it is woken by each.
                await asyncio.sleep(0.05)
            world.convergence.stream_synced(name, snapshots[name])
        report = await waiting
        assert report.is_converged
        assert report.proxies == len(names)
        # All at first, when all were seen to be synced and twice for the report; each of them, each event.
        assert cache.looks <= 8 * len(names)

    asyncio.run(main())


def test_who_comes_while_others_are_waited_for_is_waited_for_too() -> None:
    async def main() -> None:
        world = World()
        snapshots = {name: world.publish(name, 7) for name in ("early", "late")}
        world.convergence.stream_opened("early", Node("early"))
        waiting = asyncio.create_task(world.wait(7))
        await asyncio.sleep(0)
        world.convergence.stream_opened("late", Node("late"))
        world.convergence.stream_synced("early", snapshots["early"])
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        world.convergence.stream_synced("late", snapshots["late"])
        assert (await waiting).is_converged

    asyncio.run(main())
