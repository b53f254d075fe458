"""Statuses on their way to the store: counted from events, written together, true after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.insights.test_convergence import Progress

from kumafast.errors import StoreUnavailableError
from kumafast.insights import Convergence, Insights, edits
from kumafast.insights import insights as insights_module
from kumafast.metrics import Metrics
from kumafast.resources import Dataplane, DataplaneInsight, Mesh, ResourceKey, parse, status
from kumafast.resources.fields import FrozenMap
from kumafast.resources.tags import AWAITS_PROXY_LABEL
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, LISTENER, SECRET
from kumafast.store import Delete, MemoryStore, Put, Store
from kumafast.store.members import Member
from kumafast.templates import Failure


def insights_on(store: Store, *, flush_ms: float = 1, instance_id: str = "cp-1") -> Insights:
    convergence = Convergence(cache=SnapshotCache(), progress=Progress())
    return Insights(store=store, convergence=convergence, metrics=Metrics(), instance_id=instance_id, flush_ms=flush_ms)


async def store_with(*names: str) -> MemoryStore:
    store = MemoryStore()
    await store.put(Mesh(name="default"))
    for name in names:
        await store.put(dataplane(name))
    return store


def dataplane(name: str) -> Dataplane:
    resource = parse({"type": "Dataplane", "mesh": "default", "name": name, "networking": {"address": "127.0.0.1"}})
    assert isinstance(resource, Dataplane)
    return resource


async def insight_of(store: Store, name: str) -> DataplaneInsight:
    resource = (await store.get(ResourceKey("DataplaneInsight", "default", name))).resource
    assert isinstance(resource, DataplaneInsight)
    return resource


@asynccontextmanager
async def following(insights: Insights) -> AsyncIterator[None]:
    task = asyncio.create_task(insights.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_counts_and_status_follow_the_stream() -> None:
    async def main() -> None:
        store = await store_with("web")
        insights = insights_on(store)
        version = {"envoy": {"version": "1.40.0", "build": "b"}}
        insights.stream_opened("s", Node("default.web", metadata={"version": version, "workdir": "w"}))
        insights.response_sent("s", CLUSTER, "v1", 100)
        insights.response_acknowledged("s", CLUSTER, "v1")
        insights.response_sent("s", SECRET, "v1", 10)
        insights.response_rejected("s", SECRET, "v1", "bad key")
        await insights.flush()
        insight = await insight_of(store, "web")
        (subscription,) = insight.subscriptions
        assert status(insight) == "Online"
        assert (subscription.id, subscription.control_plane_instance_id) == ("s", "cp-1")
        total, cds = subscription.status.total, subscription.status.cds
        assert (total.responses_sent, total.responses_acknowledged, total.responses_rejected) == (2, 1, 1)
        assert (cds.responses_sent, cds.responses_acknowledged, cds.responses_rejected) == (1, 1, 0)
        assert subscription.status.last_error is not None
        assert subscription.status.last_error.message == "bad key"
        assert subscription.status.last_error.time is not None
        clusters, secrets = subscription.status.types
        assert (clusters.type_url, clusters.bytes_sent, clusters.acknowledged_version) == (CLUSTER, 100, "v1")
        assert (secrets.sent_version, secrets.acknowledged_version, secrets.rejected_version) == ("v1", "", "v1")
        assert (secrets.error, secrets.rejected_time) == ("bad key", subscription.status.last_error.time)
        assert subscription.version is not None
        assert subscription.version.envoy is not None
        assert subscription.version.envoy.version == "1.40.0"
        insights.stream_closed("s")
        await insights.flush()
        assert status(await insight_of(store, "web")) == "Offline"

    asyncio.run(main())


def test_a_client_cannot_make_a_status_that_is_not_stored() -> None:
    async def main() -> None:
        store = await store_with("web")
        insights = insights_on(store)
        insights.stream_opened("s", Node("default.web", metadata={"number": float("nan")}))
        for type_url in ("x" * 100_000, "y" * 100_000):
            insights.response_sent("s", type_url, "v1", 100)
            insights.response_rejected("s", type_url, "v1", "e" * 1_000_000)
        await insights.flush()
        insight = await insight_of(store, "web")
        assert insight.metadata is None
        (subscription,) = insight.subscriptions
        assert [len(entry.type_url) for entry in subscription.status.types] == [255, 255]

    asyncio.run(main())


def test_many_events_are_few_writes_and_none_is_no_write() -> None:
    async def main() -> None:
        store = await store_with(*(f"dp-{number}" for number in range(50)))
        insights = insights_on(store, flush_ms=20)
        before = await store.revision()
        async with following(insights):
            await asyncio.sleep(0.05)
            assert await store.revision() == before
            for number in range(50):
                insights.stream_opened(f"s{number}", Node(f"default.dp-{number}"))
                for _ in range(20):
                    insights.response_sent(f"s{number}", CLUSTER, "v", 1)
            await asyncio.sleep(0.05)
            assert await store.revision() - before == 1

    asyncio.run(main())


def test_counts_alone_are_written_seldom_and_a_refusal_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insights_module, "COUNTS_S", 0.1)

    async def main() -> None:
        store = await store_with("web", "quiet")
        insights = insights_on(store)
        for name in ("web", "quiet"):
            insights.stream_opened(name, Node(f"default.{name}"))
        async with following(insights):
            await asyncio.sleep(0.02)
            before = await store.revision()
            for _ in range(5):
                insights.response_sent("web", CLUSTER, "v", 1)
                insights.response_acknowledged("web", CLUSTER, "v")
                await asyncio.sleep(0.002)
            assert await store.revision() == before
            await asyncio.sleep(0.15)
            assert await store.revision() == before + 1
            assert (await insight_of(store, "web")).subscriptions[0].status.total.responses_acknowledged == 5
            insights.response_rejected("web", CLUSTER, "v", "bad")
            await asyncio.sleep(0.02)
            assert await store.revision() == before + 2
            await asyncio.sleep(0.15)
            assert await store.revision() == before + 2

    asyncio.run(main())


def test_counts_of_many_are_written_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insights_module, "COUNTS_S", 3600.0)

    async def main() -> None:
        count = 2 * insights_module.COUNTS_MAX + 1
        store = await store_with(*(f"dp-{number}" for number in range(count)))
        insights = insights_on(store)
        for number in range(count):
            insights.stream_opened(f"s{number}", Node(f"default.dp-{number}"))
        await insights.flush()

        async def acknowledged() -> int:
            """The dataplanes whose status says that they have acknowledged what they were all sent."""
            held = (await store.list("DataplaneInsight", "default")).items
            return sum(
                each.resource.subscriptions[0].status.total.responses_acknowledged  # type: ignore[attr-defined]
                for each in held
            )

        for number in range(count):
            insights.response_sent(f"s{number}", CLUSTER, "v", 1)
            insights.response_acknowledged(f"s{number}", CLUSTER, "v")
        timers: list[Callable[[], None]] = []

        def call_later(_: float, call: Callable[[], None]) -> Timer:
            timers.append(call)
            return Timer()

        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        written = []
        insights._count_now()
        while insights._dirty:
            await insights._flush()
            written.append(await acknowledged())
            if timers:
                timers.pop()()
        assert written == [insights_module.COUNTS_MAX, 2 * insights_module.COUNTS_MAX, count]

    asyncio.run(main())


class Timer:
    """One that is never due by itself."""

    def cancel(self) -> None: ...


def test_many_statuses_are_several_commits() -> None:
    async def main() -> None:
        count = 2 * edits.COMMIT_MAX + 1
        store = await store_with(*(f"dp-{number}" for number in range(count)))
        insights = insights_on(store)
        before = await store.revision()
        for number in range(count):
            insights.stream_opened(f"s{number}", Node(f"default.dp-{number}"))
        await insights.flush()
        assert await store.revision() == before + 3
        assert all([status(await insight_of(store, f"dp-{number}")) == "Online" for number in range(count)])

    asyncio.run(main())


def test_a_proxy_without_a_dataplane_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        store = await store_with("web")
        insights = insights_on(store)
        insights.stream_opened("s1", Node("default.unknown"))
        insights.stream_opened("s2", Node("nowhere.web"))
        insights.stream_opened("s3", Node("no-dot"))
        insights.stream_opened("s4", Node("default.web"))
        await insights.flush()
        assert status(await insight_of(store, "web")) == "Online"

    asyncio.run(main())


def test_what_a_dead_instance_left_open_is_ended() -> None:
    async def main() -> None:
        store = await store_with("web")
        insights = insights_on(store)
        insights.stream_opened("s", Node("default.web"))
        await insights.flush()
        assert status(await insight_of(store, "web")) == "Online"
        after_restart = insights_on(store)
        await after_restart.take_over()
        assert status(await insight_of(store, "web")) == "Offline"
        revision = await store.revision()
        await after_restart.take_over()
        assert await store.revision() == revision

    asyncio.run(main())


def test_who_has_moved_to_another_instance_is_online_whatever_the_first_says_later() -> None:
    async def main() -> None:
        store = await store_with("web")
        left, joined = insights_on(store, instance_id="left"), insights_on(store, instance_id="joined")
        left.stream_opened("old", Node("default.web", metadata={"from": "left"}))
        await left.flush()
        joined.stream_opened("new", Node("default.web", metadata={"from": "joined"}))
        await joined.flush()
        left.stream_closed("old")
        await left.flush()
        insight = await insight_of(store, "web")
        assert [(each.id, each.is_online) for each in insight.subscriptions] == [("old", False), ("new", True)]
        assert insight.metadata == {"from": "joined"}
        # However often it comes and goes elsewhere, what is open here stays.
        for number in range(5):
            left.stream_opened(f"old-{number}", Node("default.web"))
            left.stream_closed(f"old-{number}")
            await left.flush()
        assert {each.id for each in (await insight_of(store, "web")).subscriptions if each.is_online} == {"new"}

    asyncio.run(main())


def test_instances_that_write_at_once_keep_what_the_other_says() -> None:
    async def main() -> None:
        names = [f"dp-{number}" for number in range(20)]
        store = LateStore()
        await store.put(Mesh(name="default"))
        await store.write([Put(dataplane(name)) for name in names])
        one, other = insights_on(store, instance_id="one"), insights_on(store, instance_id="other")
        for name in names:
            one.stream_opened(f"one-{name}", Node(f"default.{name}"))
            other.stream_opened(f"other-{name}", Node(f"default.{name}"))
        await asyncio.gather(one.flush(), other.flush())
        for name in names:
            said = {each.id for each in (await insight_of(store, name)).subscriptions if each.is_online}
            assert said == {f"one-{name}", f"other-{name}"}

    asyncio.run(main())


class LateStore(MemoryStore):
    """Writes happen some time after their writer has looked."""

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        await asyncio.sleep(0.01)
        return await super().write(operations)


def test_who_was_taken_for_dead_says_what_is_true_again() -> None:
    async def main() -> None:
        store = await store_with("web", "echo")
        alive = insights_on(store, instance_id="alive")
        leader = insights_on(store, instance_id="leader")
        alive.stream_opened("s", Node("default.web"))
        await alive.flush()
        store.members.own = "leader"
        async with following(alive):
            keeping = asyncio.create_task(alive.keep_true())
            await asyncio.sleep(0)
            await leader.take_over()
            assert status(await insight_of(store, "web")) == "Offline"
            async with asyncio.timeout(10):
                while status(await insight_of(store, "web")) != "Online":
                    await asyncio.sleep(0.01)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(main())


def test_a_leader_ends_the_streams_of_those_who_have_gone_and_no_others() -> None:
    async def main() -> None:
        store = await store_with("of-the-dead", "of-the-living", "of-its-own")
        for instance, name in (("dead", "of-the-dead"), ("living", "of-the-living"), ("own", "of-its-own")):
            insights = insights_on(store, instance_id=instance)
            insights.stream_opened(f"s-{instance}", Node(f"default.{name}"))
            await insights.flush()
        store.members.own = "own"
        both = {"dead": Member(0, 0), "living": Member(0, 0)}
        store.members.see(both, is_leading=True, is_settled=True)
        leading = asyncio.create_task(store.members.lead(insights.follow_members))
        await asyncio.sleep(0.01)
        assert [status(await insight_of(store, name)) for name in ("of-the-dead", "of-its-own")] == ["Online"] * 2
        # Not before it is certain.
        store.members.see({"living": Member(0, 0)}, is_leading=True, is_settled=False)
        await asyncio.sleep(0.01)
        assert status(await insight_of(store, "of-the-dead")) == "Online"
        store.members.see({"living": Member(0, 0)}, is_leading=True, is_settled=True)
        async with asyncio.timeout(10):
            while status(await insight_of(store, "of-the-dead")) != "Offline":
                await asyncio.sleep(0.01)
        assert [status(await insight_of(store, name)) for name in ("of-the-living", "of-its-own")] == ["Online"] * 2
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)

    asyncio.run(main())


def test_a_launched_dataplane_is_opened_when_its_envoy_listens() -> None:
    async def main() -> None:
        store = await store_with("other")
        waiting = dataplane("web").model_copy(update={"labels": FrozenMap({AWAITS_PROXY_LABEL: "true", "a": "b"})})
        await store.put(waiting)
        insights = insights_on(store)
        insights.stream_opened("s", Node("default.web"))
        insights.response_acknowledged("s", CLUSTER, "v1")
        await asyncio.sleep(0.01)
        assert (await store.get(waiting.key)).resource == waiting
        insights.response_acknowledged("s", LISTENER, "v1")
        await asyncio.sleep(0.01)
        assert (await store.get(waiting.key)).resource.labels == {"a": "b"}
        revision = await store.revision()
        insights.response_acknowledged("s", LISTENER, "v2")
        await asyncio.sleep(0.01)
        assert await store.revision() == revision

    asyncio.run(main())


def test_after_a_crash_nobody_is_kept_waiting() -> None:
    async def main() -> None:
        store = await store_with()
        await store.put(dataplane("web").model_copy(update={"labels": FrozenMap({AWAITS_PROXY_LABEL: "true"})}))
        await insights_on(store).take_over()
        assert (await store.get(dataplane("web").key)).resource.labels == {}

    asyncio.run(main())


def test_ended_streams_are_kept_up_to_a_bound() -> None:
    async def main() -> None:
        store = await store_with("web")
        insights = insights_on(store)
        for number in range(10):
            insights.stream_opened(f"s{number}", Node("default.web"))
            await insights.flush()
            insights.stream_closed(f"s{number}")
        insights.stream_opened("last", Node("default.web"))
        await insights.flush()
        assert [subscription.id for subscription in (await insight_of(store, "web")).subscriptions] == ["s9", "last"]

    asyncio.run(main())


class FailingStore(MemoryStore):
    is_away = False

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().write(operations)


def test_nothing_is_forgotten_while_the_store_is_away() -> None:
    async def main() -> None:
        store = FailingStore()
        await store.put(Mesh(name="default"))
        await store.put(dataplane("web"))
        insights = insights_on(store)
        store.is_away = True
        async with following(insights):
            insights.stream_opened("s", Node("default.web"))
            await asyncio.sleep(0.05)
            store.is_away = False
            for _ in range(100):
                await asyncio.sleep(0.01)
                if [stored.resource for stored in (await store.list("DataplaneInsight")).items]:
                    break
        assert status(await insight_of(store, "web")) == "Online"

    asyncio.run(main())


def test_what_cannot_be_made_for_a_proxy_is_in_its_status_until_it_can_or_the_proxy_goes() -> None:
    async def main() -> None:
        store = await store_with("web")
        failures: dict[str, Failure] = {}
        insights = Insights(
            store=store,
            convergence=Convergence(cache=SnapshotCache(), progress=Progress()),
            metrics=Metrics(),
            instance_id="cp-1",
            flush_ms=1,
            failure_of=failures.get,
        )
        policy = ResourceKey("ProxyTemplate", "default", "t")
        # Of a proxy that is not connected nothing is said.
        insights.failed("default.web")
        insights.stream_opened("s", Node("default.web"))
        await insights.flush()
        assert (await insight_of(store, "web")).failure is None
        failures["default.web"] = Failure("no such filter", LISTENER, "inbound:127.0.0.1:80", (policy,))
        insights.failed("default.web")
        await insights.flush()
        shown = (await insight_of(store, "web")).model_dump(mode="json", by_alias=True, exclude_none=True)["failure"]
        assert shown == {
            "typeUrl": LISTENER,
            "resource": "inbound:127.0.0.1:80",
            "message": "no such filter",
            "policies": [policy._asdict()],
        }
        # It goes with the failure, and with the proxy.
        failure = failures.pop("default.web")
        insights.failed("default.web")
        await insights.flush()
        assert (await insight_of(store, "web")).failure is None
        failures["default.web"] = failure
        insights.failed("default.web")
        await insights.flush()
        insights.stream_closed("s")
        await insights.flush()
        assert (await insight_of(store, "web")).failure is None

    asyncio.run(main())
