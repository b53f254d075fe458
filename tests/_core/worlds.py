"""Random worlds for the core: a few dataplanes and selectors that are likely to meet, in four shapes.

In: a seeded `random.Random`. Out: plain dicts, and the core's forms of them. Never: a world too large to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kumafast._core import Matches, SelectorSet, TagIndex, TagSelector, TagSet

Tags = dict[str, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world's vocabulary is, and how its selectors are made."""

    keys: int
    values: int
    tags_max: int
    wildcard_share: float = 0.1
    copies: bool = False


SHAPES = {
    "few tags, many values": Shape(keys=2, values=40, tags_max=2),
    "many tags": Shape(keys=12, values=3, tags_max=10),
    "wildcards": Shape(keys=5, values=3, tags_max=4, wildcard_share=0.6),
    "duplicates": Shape(keys=3, values=2, tags_max=3, copies=True),
}


@dataclass(slots=True)
class World:
    """Dataplanes with zero to three inbounds each, and selectors, some with several alternatives."""

    dataplanes: dict[int, list[Tags]]
    selectors: list[tuple[int, Tags]]

    def tag_index(self) -> TagIndex:
        return TagIndex((id, tag_sets(inbounds)) for id, inbounds in self.dataplanes.items())

    def selector_set(self) -> SelectorSet:
        return SelectorSet((id, TagSelector(match)) for id, match in self.selectors)


def tag_sets(inbounds: list[Tags]) -> TagSet | list[TagSet]:
    return TagSet(inbounds[0]) if len(inbounds) == 1 else [TagSet(tags) for tags in inbounds]


def random_tags(random: Random, shape: Shape) -> Tags:
    count = random.randint(0, shape.tags_max)
    return {f"k{random.randrange(shape.keys)}": f"v{random.randrange(shape.values)}" for _ in range(count)}


def random_selector(random: Random, shape: Shape, dataplanes: dict[int, list[Tags]]) -> Tags:
    inbounds = random.choice(list(dataplanes.values())) if dataplanes and random.random() < 0.7 else []
    source = random.choice(inbounds) if inbounds else random_tags(random, shape)
    kept = random.sample(sorted(source.items()), k=random.randint(0, min(4, len(source))))
    return {key: "*" if random.random() < shape.wildcard_share else value for key, value in kept}


def random_world(random: Random, shape: Shape) -> World:
    ids = random.sample(range(80), k=random.randint(0, 6))
    if random.random() < 0.1:
        ids = [id if random.random() < 0.5 else 2**32 - 1 - id for id in ids]
    dataplanes = {id: [random_tags(random, shape) for _ in range(random.choice((1, 1, 1, 0, 2, 3)))] for id in ids}
    if shape.copies and dataplanes:
        shared = random.choice(list(dataplanes.values()))
        dataplanes = {id: shared if random.random() < 0.5 else own for id, own in dataplanes.items()}
    ids_of_selectors = [random.randrange(6) for _ in range(random.randint(0, 5))]
    selectors = [(id, random_selector(random, shape, dataplanes)) for id in ids_of_selectors]
    if shape.copies:
        selectors += random.sample(selectors, k=len(selectors) // 2)
    return World(dataplanes, selectors)


def rows_of(matches: Matches) -> dict[int, list[int]]:
    """`Matches` as plain values, its own promises checked on the way."""
    ids, offsets, selector_ids = matches.ids.tolist(), matches.offsets.tolist(), matches.selector_ids.tolist()
    assert len(offsets) == len(selector_ids) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(ids) == len(matches)
    return {id: ids[offsets[row] : offsets[row + 1]] for row, id in enumerate(selector_ids)}
