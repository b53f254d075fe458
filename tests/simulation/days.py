"""Days of several instances in virtual time: users write, proxies come and go, and everything fails now and then.

In: a seed, how long. Out: what was wrong in the end, what was counted on the way, and a digest of all that happened,
the same for the same seed. Never: a product's part that is played; only PostgreSQL, wires and clocks are.

`python -m tests.simulation.days --seeds 50 --hours 24` is the long form.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.pipeline import dataplane, service
from tests.simulation import virtual_time
from tests.simulation.actors import SLOW_S, Instance, Proxy
from tests.simulation.cluster import Cluster
from tests.simulation.virtual_time import VirtualLoop, WallClock

from kumafast.errors import KumafastError, StoreUnavailableError
from kumafast.identity.backends import create_builtin
from kumafast.identity.workload import period_at
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.resources import DataplaneInsight, Mesh, Resource, ResourceKey, Secret, parse
from kumafast.resources.mesh import CertificateAuthority
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import SECRET
from kumafast.store import Delete, MemoryStore, Put
from kumafast.store.postgres.connection import UNREACHABLE

INSTANCES, PROXIES, SERVICES = 3, 9, 3
WRITE_EVERY_S, FAULT_EVERY_S = 90.0, 600.0
SETTLE_S = 180.0
"""How long after the last fault everything has to be as it should."""
HOUR_S, YEAR_S = 3600.0, 365 * 86_400.0
TURNS_A_SECOND_MAX = 2_000
LEAP_S = 120.0
"""So long after a clock was set it is counted what has come of it; clocks are looked at every 30 s."""
LEAP_TIMERS_MAX, LEAP_WRITES_MAX = 60 * int(LEAP_S), 30
WRITES_OF_STREAM = 4
"""Open, taken, closed, and once more where somebody was thought dead."""
LEAPS_S = (HOUR_S, -HOUR_S, 5 * HOUR_S, -30 * HOUR_S, YEAR_S, -YEAR_S, 10 * YEAR_S)
"""By how much clocks are set, to be set back some minutes later, which is within the life of any certificate."""
LIFETIME = timedelta(hours=24)
"""Of certificates."""


@dataclass
class Outcome:
    """How a history ended."""

    faults: list[str]
    digest: str
    counts: Counter[str]


@dataclass
class World:
    """Everybody, and what has happened."""

    loop: VirtualLoop
    chance: random.Random
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    storms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.loop.time)
        self.instances: list[Instance | None] = [None] * INSTANCES
        self.proxies = [Proxy(self, number) for number in range(PROXIES)]
        self._digest = hashlib.sha256()
        # What a key may hold: more than one thing where a write was not acknowledged.
        self._possible: dict[ResourceKey, list[Resource | None]] = {}
        self._healing: set[asyncio.Task[None]] = set()

    def note(self, *what: object) -> None:
        """Something has happened."""
        self._digest.update(f"{self.loop.time():.6f} {' '.join(map(str, what))}\n".encode())

    async def play(self) -> Outcome:
        """A whole history."""
        for number in range(INSTANCES):
            await self._start(number)
        first = self.instances[0]
        assert first is not None
        beginning = _beginning()
        await first.store.write([Put(each) for each in beginning])
        self._possible = {each.key: [each] for each in beginning if each.type.name == "Dataplane"}
        lives = [asyncio.create_task(proxy.live()) for proxy in self.proxies]
        watching = asyncio.create_task(self._watch_turns())
        troubles = [asyncio.create_task(self._repeat(self._write, WRITE_EVERY_S)),
                    asyncio.create_task(self._repeat(self._fail, FAULT_EVERY_S))]  # fmt: skip
        await asyncio.sleep(self.seconds)
        for task in troubles:
            task.cancel()
        await asyncio.gather(*troubles, return_exceptions=True)
        while self._healing:
            await asyncio.wait(set(self._healing))
        await asyncio.sleep(SETTLE_S)
        faults = [*self.storms, *await self._faults()]
        for task in (*lives, watching):
            task.cancel()
        for instance in self.instances:
            if instance is not None:
                instance.die()
        await asyncio.gather(*lives, watching, return_exceptions=True)
        issued, streams = self.counts["certificates"], self.counts["streams"]
        # One for each stream, for each of its life of a day, and for each leap over what it had.
        if issued > streams + self.counts["overdue after leaps"] + PROXIES * (2 * self.seconds / (24 * HOUR_S) + 1):
            faults.append(f"{issued} certificates were issued for {streams} streams")
        return Outcome(faults, self._digest.hexdigest(), self.counts)

    async def _repeat(self, do: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / every_s))
            await do()

    async def _watch_turns(self) -> None:
        """No second of virtual time is busier than some thousand turns of the loop: timers that all go off at once, or
        again and again."""
        while True:
            before = self.loop.turns
            await asyncio.sleep(1.0)
            self.counts["busiest"] = max(self.counts["busiest"], self.loop.turns - before)
            if self.loop.turns - before > TURNS_A_SECOND_MAX:
                self.storms.append(f"{self.loop.turns - before} turns in one second at {self.loop.time():.0f}")

    # Users.

    async def _write(self) -> None:
        serving = [each for each in self.instances if each is not None and each.is_serving]
        if not serving:
            return
        instance, wanted = self.chance.choice(serving), _random_resource(self.chance, int(self.loop.time() * 1000))
        key = wanted.key
        is_gone = wanted.type.name == "MeshTimeout" and self.chance.random() < 0.3
        operation: Put | Delete = Delete(key) if is_gone else Put(wanted)
        value = None if is_gone else wanted
        possible = self._possible.setdefault(key, [None])
        try:
            revision = await instance.store.write([operation])
        except StoreUnavailableError:
            # It may have been written, or not.
            self.counts["refused"] += 1
            possible.append(value)
            self.note("refused", key)
            return
        except KumafastError as error:
            self.note("not there", key, type(error).__name__)
            return
        self.counts["written"] += 1
        self._possible[key] = [value]
        self.note("wrote", key, revision)

    # Failures, each of which ends by itself.

    async def _fail(self) -> None:
        name, fail = self.chance.choice(FAILURES)
        self.counts[name] += 1
        self.note(name)
        task = asyncio.create_task(fail(self))
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _start(self, number: int) -> None:
        while True:
            instance = Instance(self, number)
            try:
                await instance.start()
            except UNREACHABLE:
                await asyncio.sleep(1.0)
                continue
            self.instances[number] = instance
            self.note("started", number)
            return

    def _one(self) -> Instance | None:
        serving = [each for each in self.instances if each is not None and each.is_serving]
        return self.chance.choice(serving) if serving else None

    async def kill_instance(self) -> None:
        """One dies, and another takes its place."""
        instance = self._one()
        if instance is not None:
            self.instances[instance.number] = None
            instance.die()
            await asyncio.sleep(self.chance.uniform(1, 120))
            await self._start(instance.number)

    async def cut_link(self) -> None:
        """One does not reach PostgreSQL."""
        instance = self._one()
        if instance is not None:
            instance.link.is_cut = True
            await asyncio.sleep(self.chance.expovariate(1 / 60))
            instance.link.mend()

    async def stop_cluster(self) -> None:
        """PostgreSQL hangs."""
        self.cluster.stop(self.chance)
        await asyncio.sleep(self.chance.expovariate(1 / 20))
        self.cluster.go_on()

    async def kill_cluster(self) -> None:
        """PostgreSQL dies and is started again."""
        self.cluster.kill()
        await asyncio.sleep(self.chance.expovariate(1 / 20))
        self.cluster.is_up = True

    async def cut_proxies(self) -> None:
        """Streams end."""
        for proxy in self.chance.sample(self.proxies, self.chance.randrange(1, PROXIES)):
            proxy.lose()

    async def jump(self) -> None:
        """The clock of one is set, by hours or by years, forward or back, and set right later."""
        instance = self._one()
        if instance is not None:
            seconds = self.chance.choice(LEAPS_S)
            for leap_s in (seconds, -seconds):
                await self._leap(instance, leap_s)
                await asyncio.sleep(self.chance.expovariate(1 / 600))

    async def _leap(self, instance: Instance, seconds: float) -> None:
        """Set a clock, and see that nobody makes more of it than there is: who has a certificate of another time gets
        one, once, and nothing else is done more often than without."""
        self.counts["leaps"] += 1
        before, began = instance.clock.utc(), self.loop.time()
        # Also those that have vanished without a word, in which it still believes.
        nodes = [proxy.node_id for proxy in self.proxies if instance.cache.get(proxy.node_id) is not None]
        issued = instance.certificates
        timers, revision, others = self.loop.timers, self.cluster.revision, self._other_writes
        instance.clock.jump(seconds)
        instance.leaps.append((began, before, instance.clock.utc()))
        await asyncio.sleep(LEAP_S)
        # Two may set the clock of one in turns: what is due of the other's leap may come in the time of this one.
        leaps = [moments for at, *moments in instance.leaps if at > began - LEAP_S]
        moments = [*itertools.chain(*leaps), instance.clock.utc()]
        # Who has just come is sent its certificate when it takes it, which may be in a while.
        due = sum(opened > began - SLOW_S for opened in instance.opened)
        periods = [[period_at(node, lifetime=LIFETIME, now=moment) for moment in moments] for node in nodes]
        overdue = sum(one != other for each in periods for one, other in itertools.pairwise(each))
        due += overdue
        issued = instance.certificates - issued
        timers = self.loop.timers - timers
        writes = self.cluster.revision - revision - (self._other_writes - others)
        self.counts["overdue after leaps"] += overdue
        for name, number in (("timers", timers), ("writes", writes)):
            self.counts[f"most {name}"] = max(self.counts[f"most {name}"], number)
        if issued > due or timers > LEAP_TIMERS_MAX or writes > LEAP_WRITES_MAX:
            self.storms.append(
                f"{instance.name}'s clock was set by {seconds:.0f} s at {began:.0f}: {issued} certificates, {due} "
                f"of which were due, {timers} timers and {writes} writes in {LEAP_S:.0f} s"
            )

    @property
    def _other_writes(self) -> int:
        """At most so many commits come of users, and of streams that come and go."""
        return self.counts["written"] + self.counts["refused"] + WRITES_OF_STREAM * self.counts["streams"]

    # Looking.

    async def _faults(self) -> list[str]:
        """All that is not as it should be once nothing has failed for a while."""
        faults = [fault for proxy in self.proxies if (fault := proxy.fault()) is not None]
        faults += [f"{key} is lost, or made up" for key in self._wrongly_stored()]
        living = [instance for instance in self.instances if instance is not None]
        revisions = {await instance.store.revision() for instance in living}
        if revisions != {self.cluster.revision}:
            faults.append(f"instances are at {sorted(revisions)} of {self.cluster.revision}")
        if sum(instance.store.members.is_leading for instance in living) != 1:
            faults.append("not just one leads")
        faults += [
            f"{instance.name} has failed: {task.exception()!r}"
            for instance in living
            for task in (*instance.tasks, instance.store._following)
            if task.done()
        ]
        faults += self._wrongly_online()
        if not faults:
            faults += await self._wrongly_made()
        return faults

    def _wrongly_stored(self) -> Iterator[ResourceKey]:
        for key, possible in self._possible.items():
            stored = self.cluster.resources.get(key)
            if (None if stored is None else stored.resource) not in possible:
                yield key

    def _wrongly_online(self) -> Iterator[str]:
        for proxy in self.proxies:
            key = ResourceKey(DataplaneInsight.type.name, *proxy.node_id.split(".", 1))
            stored = self.cluster.resources.get(key)
            insight = None if stored is None else stored.resource
            assert insight is None or isinstance(insight, DataplaneInsight)
            open_at = [] if insight is None else [
                each.control_plane_instance_id for each in insight.subscriptions if each.is_online
            ]  # fmt: skip
            if open_at != [proxy.instance_name]:
                yield f"{proxy.node_id} is at {proxy.instance_name}, and said to be at {open_at}"

    async def _wrongly_made(self) -> list[str]:
        """Who is given something else than a control plane gives that is started now."""
        store = MemoryStore()
        resources = [stored.resource for stored in self.cluster.resources.values()]
        resources.sort(key=lambda resource: (resource.type.name != "Mesh", resource.type.owner is not None))
        await store.write([Put(resource) for resource in resources])
        cache = SnapshotCache()
        clock = WallClock(self.loop.time)
        fresh = Reconciler(store=store, cache=cache, metrics=Metrics(), debounce_ms=0, clock=clock)
        await fresh.load()
        wrong = []
        for proxy in self.proxies:
            fresh.connect("fresh", Node(proxy.node_id))
            snapshot = cache.get(proxy.node_id)
            assert snapshot is not None
            wanted = {each: dict(snapshot.resource_versions(each)) for each in sorted(snapshot.type_urls)}
            # The authority is made by chance, and its certificates' versions with it.
            self.note("holds", proxy.node_id, {each: wanted[each] for each in wanted if each != SECRET})
            given = proxy.versions()
            if wanted != given:
                types = [each for each in wanted if wanted[each] != given.get(each)]
                wrong.append(f"{proxy.node_id} is given other {types} by {proxy.instance_name}")
        return wrong


FAILURES: list[tuple[str, Callable[[World], Coroutine[Any, Any, None]]]] = [
    ("kills", World.kill_instance),
    ("cuts", World.cut_link),
    ("hangs", World.stop_cluster),
    ("deaths", World.kill_cluster),
    ("lost streams", World.cut_proxies),
    ("clocks set", World.jump),
]


@cache
def _authority() -> tuple[Secret, Secret]:
    made_at = datetime.fromtimestamp(1_789_990_000, UTC)
    return create_builtin("default", CertificateAuthority(name="ca-1", type="builtin"), now=made_at)


def _beginning() -> list[Resource]:
    backend = {"name": "ca-1", "type": "builtin", "dpCert": {"rotation": {"expiration": "24h"}}}
    mesh = Mesh.model_validate({"name": "default", "mtls": {"enabledBackend": "ca-1", "backends": [backend]}})
    permission = {
        "type": "TrafficPermission", "mesh": "default", "name": "all",
        "sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}],
    }  # fmt: skip
    return [mesh, *_authority(), parse(permission), *(_dataplane(number, 0) for number in range(PROXIES))]


def _dataplane(number: int, moment: int) -> Resource:
    return dataplane(
        f"dp-{number}",
        address=f"10.{number}.{moment >> 8 & 255}.{moment & 255}",
        tags=service(f"service-{number % SERVICES}"),
        reaches=[service(f"service-{(number + 1) % SERVICES}")],
    )


def _random_resource(chance: random.Random, moment: int) -> Resource:
    if chance.random() < 0.7:
        return _dataplane(chance.randrange(PROXIES), moment)
    to = {
        "targetRef": {"kind": "MeshService", "name": f"service-{chance.randrange(SERVICES)}"},
        "default": {"connectionTimeout": f"{1 + moment % 10_000}ms"},
    }
    name = f"policy-{chance.randrange(4)}"
    return parse({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": {"to": [to]}})


def play(seed: int, *, hours: float) -> Outcome:
    """One history."""
    # Of the pauses between attempts, which are the library's.
    random.seed(seed)

    async def main(loop: VirtualLoop) -> Outcome:
        return await World(loop, random.Random(seed), hours * HOUR_S).play()

    return virtual_time.run(main)


def main() -> int:
    """Play many; 1 where something was wrong in one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--hours", type=float, default=24.0)
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of text have the same order in every process then.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation.days", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})  # fmt: skip
    wrong, total = 0, Counter[str]()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        began = time.process_time()
        outcome = play(seed, hours=arguments.hours)
        total += outcome.counts
        total["busiest"] = max(total["busiest"], outcome.counts["busiest"])
        wrong += bool(outcome.faults)
        seconds = time.process_time() - began
        print(f"seed {seed} {outcome.digest[:16]} {seconds:.1f} s {outcome.faults or 'good'}", flush=True)  # noqa: T201
    print(f"{wrong} of {arguments.seeds} wrong; {dict(total)}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        raise SystemExit(main())
