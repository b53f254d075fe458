"""100,000 random worlds in four shapes: the core and its naive twin never differ."""

from __future__ import annotations

from random import Random

import pytest
from tests._core.worlds import SHAPES, World, random_selector, random_tags, random_world, rows_of, tag_sets
from tests.oracles import matching_naive as naive

from kumafast._core import TagSelector

WORLDS_PER_SHAPE = 25_000


def check(world: World, random: Random, shape: str) -> None:
    index, selectors = world.tag_index(), world.selector_set()
    assert rows_of(index.match_all(selectors)) == naive.match_all(world.selectors, world.dataplanes)
    for id, inbounds in world.dataplanes.items():
        assert id in index
        assert selectors.match(tag_sets(inbounds)) == naive.match_set(world.selectors, inbounds)
        assert selectors.fingerprint(tag_sets(inbounds)) == naive.fingerprint(world.selectors, inbounds)
    old, new = (random_selector(random, SHAPES[shape], world.dataplanes) for _ in range(2))
    assert list(index.match(TagSelector(old))) == naive.match_index(old, world.dataplanes)
    assert list(index.affected(TagSelector(old), TagSelector(new))) == naive.affected(old, new, world.dataplanes)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_core_and_twin_never_differ(shape: str) -> None:
    random = Random(f"worlds {shape}")
    for _ in range(WORLDS_PER_SHAPE):
        check(random_world(random, SHAPES[shape]), random, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [70, 700, 5_000])
def test_larger_worlds_use_every_form_of_posting(shape: str, size: int) -> None:
    """Thousands of ids, dense, sparse and far apart: arrays, bitsets, and the ways between them."""
    random = Random(f"larger {shape} {size}")
    ids = random.sample(range(size * 3), k=size - 5) + [2**32 - 1 - at * 1_000_003 for at in range(5)]
    world = random_world(random, SHAPES[shape])
    pool = [list(random_world(random, SHAPES[shape]).dataplanes.values()) for _ in range(50)]
    choices = [inbounds for several in pool for inbounds in several]
    world.dataplanes = {id: random.choice(choices) for id in ids}
    world.selectors = [(id, random_selector(random, SHAPES[shape], world.dataplanes)) for id in range(20)]
    index = world.tag_index()
    for id in random.sample(ids, k=size * 9 // 10):
        index.remove(id)
        inbounds = world.dataplanes.pop(id)
        if random.random() < 0.3:
            index.add(id, tag_sets(inbounds))
            world.dataplanes[id] = inbounds
    assert len(index) == len(world.dataplanes)
    expected = naive.match_all(world.selectors, world.dataplanes)
    assert rows_of(index.match_all(world.selector_set())) == expected
    assert {id: list(index.match(TagSelector(match))) for id, match in world.selectors} == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_a_changing_index_is_always_what_it_would_be_if_built_anew(shape: str) -> None:
    """Dataplanes gain and lose inbounds; after each change, selectors made from what changed are matched."""
    random = Random(f"changes {shape}")
    world = random_world(random, SHAPES[shape])
    index = world.tag_index()
    for _ in range(3_000):
        id = random.randrange(12)
        inbounds = [random_tags(random, SHAPES[shape]) for _ in range(random.choice((0, 1, 1, 2, 3)))]
        near = {id: world.dataplanes.get(id, []) + inbounds}
        if id not in world.dataplanes:
            index.add(id, tag_sets(inbounds))
        elif random.random() < 0.2:
            index.remove(id)
        else:
            index.update(id, tag_sets(inbounds))
        if id in world.dataplanes and id not in index:
            del world.dataplanes[id]
        else:
            world.dataplanes[id] = inbounds
        old, new = (random_selector(random, SHAPES[shape], near) for _ in range(2))
        assert list(index.match(TagSelector(old))) == naive.match_index(old, world.dataplanes)
        assert list(index.affected(TagSelector(old), TagSelector(new))) == naive.affected(old, new, world.dataplanes)
