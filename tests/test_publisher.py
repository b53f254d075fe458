"""Who gets a snapshot when: newcomers at once, everybody else in turn, and nobody blocks the loop or starves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import pytest

from kumafast import garbage
from kumafast import publisher as scheduling
from kumafast.metrics import Metrics
from kumafast.pending import Depth
from kumafast.publisher import Publisher
from kumafast.reached import Reached, Unready
from kumafast.resources import ResourceKey
from kumafast.snapshot import Layer, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER
from kumafast.viewed import Viewed

NODES = [f"default.dp-{number}" for number in range(500)]


class Numbered:
    """What a node gets in a world that is one number; the number may change as policies do."""

    reached: tuple[Reached, ...] = ()

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.views: Mapping[Reached, Viewed] = {}

    def layers(self) -> tuple[Layer, ...]:
        return (Layer([XdsResource(CLUSTER, "truth", str(self._stage.truth).encode())]),)

    def templates(self) -> tuple[ResourceKey, ...]:
        return ()


class Stage:
    """A publisher for which every node's configuration is one number."""

    def __init__(self) -> None:
        self.truth = 0
        self.resolved: list[str] = []
        self.unready: dict[str, int] = {}
        self.rests = 0
        self.cache = SnapshotCache()
        self.publisher = Publisher(
            cache=self.cache,
            metrics=Metrics(),
            resolve=self._resolve,
            rest=lambda: setattr(self, "rests", self.rests + 1),
        )

    def _resolve(self, node_id: str, node: Node) -> Numbered:
        if self.unready.get(node_id, 0):
            self.unready[node_id] -= 1
            raise Unready
        self.resolved.append(node_id)
        return Numbered(self)

    def connect(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.publisher.connect(f"stream of {node_id}", Node(node_id))

    def change(self, revision: int, *node_ids: str, depth: Depth = Depth.WHOLE) -> None:
        self.truth = revision
        self.publisher.fall_behind(node_ids, since=revision, at=0.0, depth=depth)
        self.publisher.stand_at(revision)

    def held(self, node_id: str) -> int:
        snapshot = self.cache.get(node_id)
        assert snapshot is not None
        return int(snapshot.resources(CLUSTER)["truth"].body)


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.connect(*NODES)
    stage.resolved.clear()
    return stage


def test_a_large_set_comes_in_slices_with_everything_else_in_between(stage: Stage) -> None:
    async def main() -> None:
        stage.change(1, *NODES)
        done: list[int] = []

        async def beat() -> None:
            while True:
                done.append(len(stage.resolved))
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        await stage.publisher.publish_until(lambda: False)
        beating.cancel()
        done.append(len(stage.resolved))
        steps = [later - earlier for earlier, later in itertools.pairwise(done)]
        assert 0 < max(steps) <= scheduling.SLICE_NODES_MAX
        assert stage.resolved == NODES

    asyncio.run(main())


def test_a_revision_is_reached_when_the_last_slice_of_it_is_published(stage: Stage) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(stage.publisher.reach(1))
        stage.change(1, *NODES)
        while stage.publisher.is_behind:
            assert stage.publisher.revision == 0
            assert not waiting.done()
            stage.publisher.publish_slice()
            await asyncio.sleep(0)
        assert stage.publisher.revision == 1
        await asyncio.wait_for(waiting, 1)
        assert {stage.held(node_id) for node_id in NODES} == {1}

    asyncio.run(main())


def test_a_revision_is_reached_while_later_ones_keep_coming(stage: Stage) -> None:
    stage.change(1, *NODES[:100])
    revision = 1
    while stage.publisher.revision < 1:
        revision += 1
        stage.change(revision, *NODES[100:])
        stage.publisher.publish_slice()
    assert stage.publisher.is_behind
    assert revision <= 1 + len(NODES)
    assert all(stage.held(node_id) >= 1 for node_id in NODES[:100])


def test_a_later_change_of_one_who_waits_is_not_a_second_task(stage: Stage) -> None:
    for revision in range(1, 10):
        stage.change(revision, *NODES[:50])
    while stage.publisher.is_behind:
        stage.publisher.publish_slice()
    assert stage.resolved == NODES[:50]
    assert {stage.held(node_id) for node_id in NODES[:50]} == {9}
    assert stage.publisher.revision == 9


def test_other_policies_do_not_resolve_a_node_anew(stage: Stage) -> None:
    stage.change(1, *NODES[:3], depth=Depth.POLICIES)
    stage.change(2, *NODES[2:5], depth=Depth.WHOLE)
    # What lacks more already is not narrowed by a change that needs less.
    stage.change(3, *NODES[4:6], depth=Depth.POLICIES)
    while stage.publisher.is_behind:
        stage.publisher.publish_slice()
    assert {stage.held(node_id) for node_id in NODES[:6]} == {3}
    assert stage.resolved == NODES[2:5]
    assert stage.publisher.work.rebound == 3
    assert stage.publisher.revision == 3


def test_a_newcomer_is_served_at_once(stage: Stage) -> None:
    stage.change(1, *NODES)
    stage.publisher.publish_slice()
    stage.connect("default.new", NODES[-1])
    assert stage.held("default.new") == 1
    # One that waits and opens another stream has what it waited for.
    assert stage.held(NODES[-1]) == 1
    stage.resolved.clear()
    while stage.publisher.is_behind:
        stage.publisher.publish_slice()
    assert NODES[-1] not in stage.resolved


def test_memory_of_nodes_is_expected_while_they_are_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []
    monkeypatch.setattr(garbage, "came", noted.append)
    for stream in ("one", "another"):
        stage.publisher.connect(stream, Node("new"))
    assert len(noted) == 1
    assert noted[0] > 0
    stage.publisher.disconnect("one", "new")
    assert len(noted) == 1
    stage.publisher.disconnect("another", "new")
    assert sum(noted) == 0


@pytest.mark.parametrize("patience_s", [0.0, 3600.0])
def test_refreshes_give_way_to_newcomers_but_do_not_starve(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(scheduling, "REFRESH_DELAY_MAX_S", patience_s)

    async def main() -> None:
        stage.change(1, *NODES)
        newcomers = [f"default.new-{number}" for number in range(100)]

        async def arrive() -> None:
            for node_id in newcomers:
                stage.connect(node_id)
                await asyncio.sleep(0)

        arriving = asyncio.create_task(arrive())
        await stage.publisher.publish_until(lambda: False)
        await arriving
        last_newcomer = stage.resolved.index(newcomers[-1])
        first_refresh = stage.resolved.index(NODES[0])
        if patience_s:
            assert first_refresh > last_newcomer
        else:
            assert first_refresh < last_newcomer
        assert {stage.held(node_id) for node_id in [*NODES, *newcomers]} == {1}

    asyncio.run(main())


def test_nobody_waits_for_those_who_have_gone(stage: Stage) -> None:
    stage.change(1, *NODES[:3])
    for node_id in NODES[:3]:
        assert stage.publisher.revision == 0
        stage.publisher.disconnect(f"stream of {node_id}", node_id)
    assert stage.publisher.revision == 1
    assert not stage.publisher.is_behind
    assert stage.resolved == []


def test_those_who_are_not_connected_are_not_behind(stage: Stage) -> None:
    assert stage.publisher.fall_behind(["default.elsewhere", NODES[0]], since=1, at=0.0) == [NODES[0]]


def test_one_who_is_not_ready_waits_and_keeps_nobody_waiting(stage: Stage) -> None:
    stage.unready["default.new"] = 4
    assert not stage.publisher.connect("stream of default.new", Node("default.new"))
    assert stage.publisher.connect("stream of default.other", Node("default.other"))
    stage.change(1, *NODES[: scheduling.SLICE_NODES_MAX])
    stage.publisher.publish_slice()
    # The others have what they should, and a piece of the work has been done.
    assert stage.held(NODES[0]) == 1
    assert stage.unready["default.new"] == 2
    assert stage.cache.get("default.new") is None
    # What it lacks is not there yet, so that revision is not everybody's.
    assert (stage.publisher.revision, stage.publisher.is_behind, stage.rests) == (0, True, 0)
    stage.change(2, "default.new")
    while stage.publisher.is_behind:
        stage.publisher.publish_slice()
    assert stage.held("default.new") == 2
    assert stage.resolved.count("default.new") == 1
    assert (stage.publisher.revision, stage.rests) == (2, 1)


def test_one_who_has_become_unready_keeps_what_it_has_until_it_is_ready(stage: Stage) -> None:
    stage.unready[NODES[0]] = 2
    stage.change(1, *NODES[:2])
    stage.publisher.publish_slice()
    assert [stage.held(node_id) for node_id in NODES[:2]] == [0, 1]
    stage.change(2, *NODES[:2], depth=Depth.POLICIES)
    while stage.publisher.is_behind:
        stage.publisher.publish_slice()
    assert [stage.held(node_id) for node_id in NODES[:2]] == [2, 2]
    assert stage.publisher.revision == 2


def test_one_who_goes_before_it_is_ready_is_forgotten(stage: Stage) -> None:
    stage.unready["default.new"] = 10
    stage.connect("default.new")
    stage.change(1, NODES[0])
    stage.publisher.publish_slice()
    assert stage.publisher.revision == 0
    stage.publisher.disconnect("stream of default.new", "default.new")
    assert (stage.publisher.revision, stage.publisher.is_behind, stage.rests) == (1, False, 1)
