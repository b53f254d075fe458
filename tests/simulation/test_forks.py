"""What a fork says of changes is what the pipeline makes of them once they are stored, and nothing live notices.

`KUMAFAST_FORKS=100000` makes a long run.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.simulation.authorities import MESH_FORMS, SECRET_FORMS
from tests.simulation.forks import state_of
from tests.simulation.histories import NODES, Step, World, history
from tests.simulation.variants import MESHES, NAMES, POLICIES, VARIANTS, naming, outside, policy

from kumafast.fork import Fork
from kumafast.generation.differences import Difference, differences
from kumafast.metrics import Metrics
from kumafast.preview import Kind, Preview, foresee
from kumafast.registry import DataplaneId
from kumafast.resources import catalog
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import ENDPOINT
from kumafast.templates import Failure

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
            steps.append(Step(rng.choice(["bind", "bind", "unbind"]), (mesh, rng.randrange(POLICIES))))
        elif kind < 0.68:
            steps.append(Step(rng.choice(["christen", "christen", "unname"]), (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.73:
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


def check(seed: int, metrics: Metrics, made: Sequence[Step] = (), *, given: Sequence[Step] = ()) -> Preview:
    """What `made`, or some random changes, would do after a history is what they do."""
    rng = random.Random(f"fork {seed}")
    world = World(metrics)
    world.play([*history(seed, LENGTH), *given])
    for number, (mesh, name) in enumerate((mesh, name) for mesh in MESHES for name in NAMES):
        world.connect(1_000 + number, mesh, name, rng.randrange(len(NODES)))
    world.settle()
    nodes: dict[str, Node] = dict(world._nodes)
    present = {node_id: world.cache.get(node_id) for node_id in nodes}
    world.play(made or changes(rng))
    was = state_of(world.reconciler, world.cache)
    fork: Fork = world.reconciler.fork()
    fork.take_in(world._changes)
    concerned = {dataplane_id.node_id for dataplane_id in fork.concerned()}
    preview = asyncio.run(foresee(world.reconciler.fork, world.reconciler.node, world._changes))
    before = {node_id: fork.before(node) for node_id, node in nodes.items()}
    after = {node_id: fork.after(node) for node_id, node in nodes.items()}
    for snapshot in (*before.values(), *after.values()):
        # Read, so that all of it is made.
        assert not isinstance(snapshot, Snapshot) or snapshot.content_key()
    assert state_of(world.reconciler, world.cache) == was
    assert (preview.proxies_left_out, preview.edits_left_out) == (0, 0)
    foreseen = {dataplane_id.node_id for dataplane_id in preview.proxies}
    failing = {dataplane_id.node_id: each for each in preview.failed for dataplane_id in each.proxies}
    assert fork.is_good
    world.settle()
    for node_id in nodes:
        then, outcome, live = before[node_id], after[node_id], world.cache.get(node_id)
        held = present[node_id]
        if isinstance(outcome, Failure):
            assert world.reconciler.failure(node_id) == outcome
            told_of = failing.pop(node_id, None)
            assert (told_of is not None) == (node_id in concerned), f"{node_id} is said to fail, or not to"
            assert told_of is None or (told_of.message, told_of.policies) == (outcome.message, outcome.policies)
            # It keeps what it has, but that endpoints go on to follow.
            assert is_same(but_endpoints(live), but_endpoints(held)), f"{node_id} gets something else"
            assert node_id not in foreseen
            continue
        now = outcome
        assert then is None or is_same(then, held), f"{node_id} has something else before"
        # Who would be told nothing keeps what it has.
        assert is_same(live, held if now is None else now), f"{node_id} gets something else"
        nothing = Snapshot()
        has_moved = now is not None and not is_same(now, then or nothing)
        assert not has_moved or node_id in concerned, f"{node_id} is not concerned"
        assert has_moved == (node_id in foreseen), f"{node_id} is wrongly foreseen to move, or not to"
        told: dict[tuple[Kind, str, str], list[str]] = {}
        for edit in (
            edit for group in preview.groups if dataplane_id_of(node_id) in group.proxies for edit in group.edits
        ):
            words = in_words(edit.differences) if edit.kind is Kind.CHANGED else ""
            told.setdefault((edit.kind, edit.type_url, words), []).extend(edit.names)
        own = edits(then or nothing, now or then or nothing)
        assert {key[:3] for key in own} == told.keys(), f"{node_id}: what is told is not what is so"
        for kind, type_url, words, name in own:
            assert is_among(name, told[kind, type_url, words]), f"{node_id}: nothing is said of {name}"
    assert failing == {}
    return preview


def but_endpoints(snapshot: Snapshot | None) -> Snapshot | None:
    if snapshot is None:
        return None
    return Snapshot.of(*(each for layer in snapshot.layers for each in layer if each.type_url != ENDPOINT))


def dataplane_id_of(node_id: str) -> DataplaneId:
    return DataplaneId(*node_id.split("."))


def edits(before: Snapshot, after: Snapshot) -> set[tuple[Kind, str, str, str]]:
    """What is another, by the plainest way: all resources compared with all."""
    found: set[tuple[Kind, str, str, str]] = set()
    for type_url in {*before.type_urls, *after.type_urls}:
        was, now = before.resources(type_url), after.resources(type_url)
        for name in {*was, *now}:
            if name not in was or name not in now:
                found.add((Kind.ADDED if name in now else Kind.REMOVED, type_url, "", name))
            elif was[name].version != now[name].version:
                differing = differences(type_url, was[name].body, now[name].body)
                found.add((Kind.CHANGED, type_url, in_words(differing), name))
    return found


def in_words(differing: Sequence[Difference]) -> str:
    """Differences without the addresses in them: those of one proxy stand for those of all of its class."""
    return re.sub(r"10([._])0[._]0[._][0-9]", r"10\g<1>x", json.dumps([list(each) for each in differing]))


def is_among(name: str, names: Sequence[str]) -> bool:
    """Whether a resource is one of an edit's, which may go by the address of any of the proxies."""
    return name in names or re.sub(r"^inbound:.*:(?=[0-9]+$)", "inbound:<address>:", name) in names


@pytest.mark.parametrize("first", range(0, FORKS, CHUNK))
def test_a_fork_says_what_the_pipeline_will_do(first: int, metrics: Metrics) -> None:
    for seed in range(first, min(first + CHUNK, FORKS)):
        try:
            check(seed, metrics)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


KINDS = sorted({policy("default", number).type.name for number in range(POLICIES)})
FAMILY = {kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and not kind.policy.is_target_ref}
BESIDE_POLICIES = {
    "ExternalService": ("extend", "curtail", outside),
    "VirtualOutbound": ("christen", "unname", naming),
}
SEEDS_MIN, SEEDS_MAX = 10, 400
MOVING_MIN = 4


def test_all_kinds_of_policies_are_among_them() -> None:
    assert set(KINDS) == {kind.name for kind in catalog.POLICY_TYPES}


@pytest.mark.parametrize("kind", [*KINDS, *BESIDE_POLICIES])
def test_a_fork_says_what_one_policy_of_each_kind_will_do(kind: str, metrics: Metrics) -> None:
    """It is written, and in another world it goes, among all the others of a history."""
    come, go, make = BESIDE_POLICIES.get(kind, ("bind", "unbind", policy))
    numbers = [
        each for each in range(POLICIES if make is policy else VARIANTS) if make("default", each).type.name == kind
    ]
    moving = failing = 0
    for seed in itertools.count():
        rng = random.Random(f"{kind} {seed}")
        written, gone = (Step(step, (MESHES[0], rng.choice(numbers))) for step in (come, go))
        try:
            seen = check(seed, metrics, [written]), check(seed, metrics, [gone], given=[replace(gone, what=come)])
        except Exception as error:
            raise AssertionError(f"{written} and {gone} after seed {seed}") from error
        # Many say nothing to anybody: their mesh has no TLS or no backend, another outweighs or silences them.
        moving += sum(1 for preview in seen if preview.proxies)
        failing += sum(1 for preview in seen if preview.failed)
        is_enough = (moving >= MOVING_MIN or kind not in {*FAMILY, *BESIDE_POLICIES}) and (
            failing or kind != "ProxyTemplate"
        )
        if seed >= SEEDS_MIN and is_enough:
            break
        assert seed < SEEDS_MAX, f"{moving} of {kind} have moved anybody, {failing} cannot be applied"
