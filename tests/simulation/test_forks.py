"""What a fork says of changes is what the pipeline makes of them once they are stored, and nothing live notices.

`KUMAFAST_FORKS=100000` makes a long run.
"""

from __future__ import annotations

import os
import random

import pytest
from tests.simulation.authorities import MESH_FORMS, SECRET_FORMS
from tests.simulation.forks import state_of
from tests.simulation.histories import MESHES, NAMES, NODES, VARIANTS, Step, World, history

from kumafast.fork import Fork
from kumafast.metrics import Metrics
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node

FORKS = int(os.environ.get("KUMAFAST_FORKS", "400"))
CHUNK = 100
LENGTH = 60


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


def changes(rng: random.Random) -> list[Step]:
    """Some changes that are stored together."""
    steps = []
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        mesh, name = rng.choice(MESHES), rng.choice(NAMES)
        kind = rng.random()
        if kind < 0.35:
            steps.append(Step("put", (mesh, name, rng.randrange(VARIANTS))))
        elif kind < 0.65:
            steps.append(Step(rng.choice(["bind", "bind", "unbind"]), (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.72:
            steps.append(Step(rng.choice(["extend", "extend", "curtail"]), (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.75:
            steps.append(Step("disclose", (mesh, rng.choice([None, "one", "two"]))))
        elif kind < 0.8:
            steps.append(Step("delete", (mesh, name)))
        elif kind < 0.9:
            steps.append(Step("mesh", (mesh, rng.randrange(MESH_FORMS))))
        else:
            steps.append(Step("secret", (mesh, rng.randrange(SECRET_FORMS))))
    return steps


def is_same(one: Snapshot | None, other: Snapshot | None) -> bool:
    return one is other or (one is not None and other is not None and one.has_content_of(other))


def check(seed: int, metrics: Metrics) -> None:
    rng = random.Random(f"fork {seed}")
    world = World(metrics)
    world.play(history(seed, LENGTH))
    for number, (mesh, name) in enumerate((mesh, name) for mesh in MESHES for name in NAMES):
        world.connect(1_000 + number, mesh, name, rng.randrange(len(NODES)))
    world.settle()
    nodes: dict[str, Node] = dict(world._nodes)
    present = {node_id: world.cache.get(node_id) for node_id in nodes}
    world.play(changes(rng))
    was = state_of(world.reconciler, world.cache)
    fork: Fork = world.reconciler.fork()
    fork.take_in(world._changes)
    concerned = {dataplane_id.node_id for dataplane_id in fork.concerned()}
    before = {node_id: fork.before(node) for node_id, node in nodes.items()}
    after = {node_id: fork.after(node) for node_id, node in nodes.items()}
    for snapshot in (*before.values(), *after.values()):
        # Read, so that all of it is made.
        assert snapshot is None or snapshot.content_key()
    assert state_of(world.reconciler, world.cache) == was
    assert fork.is_good
    world.settle()
    for node_id in nodes:
        then, now, live = before[node_id], after[node_id], world.cache.get(node_id)
        held = present[node_id]
        assert then is None or is_same(then, held), f"{node_id} has something else before"
        # Who would be told nothing keeps what it has.
        assert is_same(live, held if now is None else now), f"{node_id} gets something else"
        has_moved = now is not None and (then is None or not is_same(now, then))
        assert not has_moved or node_id in concerned, f"{node_id} is not concerned"


@pytest.mark.parametrize("first", range(0, FORKS, CHUNK))
def test_a_fork_says_what_the_pipeline_will_do(first: int, metrics: Metrics) -> None:
    for seed in range(first, min(first + CHUNK, FORKS)):
        try:
            check(seed, metrics)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
