"""Who reaches what, by classes of inbounds, against a look at every dataplane."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from kumafast._core import TagSet
from kumafast.registry.reach import Destination, Reach, Tags, destination_of

ROUNDS = 60
STEPS = 80
Inbounds = Sequence[Mapping[str, str]]

_TAGS = [
    {"kuma.io/service": service, **version} for service in "abc" for version in ({}, {"version": "1"}, {"version": "2"})
]
_ASKED: list[Tags] = [destination_of(tags) for tags in [*_TAGS, {"version": "1"}]]


class _Naive:
    """The same by a scan of all dataplanes and consumers."""

    def __init__(self) -> None:
        self.inbounds: dict[str, Inbounds] = {}
        self.consumed: dict[str, frozenset[Destination]] = {}

    def providers(self, destination: Tags) -> set[str]:
        return {name for name, inbounds in self.inbounds.items() if _serves(inbounds, destination)}

    def served_by(self, name: str) -> set[Destination]:
        reached = {each for destinations in self.consumed.values() for each in destinations}
        return {each for each in reached if _serves(self.inbounds.get(name, ()), each)}

    def consumers(self, destination: Tags) -> set[str]:
        return {name for name, destinations in self.consumed.items() if destination in destinations}

    def copy(self) -> _Naive:
        twin = _Naive()
        twin.inbounds, twin.consumed = dict(self.inbounds), dict(self.consumed)
        return twin


def _serves(inbounds: Inbounds, destination: Destination) -> bool:
    return any(set(destination) <= set(tags.items()) for tags in inbounds)


def _change(rng: random.Random, reach: Reach, naive: _Naive) -> None:
    name = f"dp-{rng.randrange(12)}"
    if name in naive.inbounds and rng.random() < 0.3:
        reach.remove(name)
        del naive.inbounds[name]
        naive.consumed.pop(name, None)
        return
    naive.inbounds[name] = rng.choices(_TAGS, k=rng.choice([0, 1, 1, 1, 2]))
    naive.consumed[name] = frozenset(rng.sample(_ASKED, rng.randrange(4)))
    reach.set(name, tuple(TagSet(tags) for tags in naive.inbounds[name]))
    reach.consume(name, naive.consumed[name])


def _check(reach: Reach, naive: _Naive) -> None:
    for destination in _ASKED:
        found = list(reach.providers(destination))
        assert len(found) == len(set(found))
        assert set(found) == naive.providers(destination)
        assert reach.consumers(destination) == naive.consumers(destination)
        assert reach.is_reached(destination) == bool(naive.consumers(destination))
    for number in range(12):
        served = reach.destinations_served_by(f"dp-{number}")
        assert len(served) == len(set(served))
        assert set(served) == naive.served_by(f"dp-{number}")


def test_it_answers_as_a_scan_would() -> None:
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        reach, naive = Reach(), _Naive()
        for step in range(STEPS):
            _change(rng, reach, naive)
            if step % 8 == 0:
                _check(reach, naive)
        _check(reach, naive)


def test_a_fork_goes_its_own_way() -> None:
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        reach, naive = Reach(), _Naive()
        for _ in range(STEPS // 2):
            _change(rng, reach, naive)
        fork, forked = reach.fork(), naive.copy()
        for _ in range(STEPS // 4):
            _change(rng, fork, forked)
        _check(fork, forked)
        _check(reach, naive)


def test_one_more_instance_of_a_service_is_not_indexed() -> None:
    reach = Reach()
    for number in range(1_000):
        reach.set(f"dp-{number}", (TagSet(_TAGS[number % 2]),))
    assert len(reach._index) == 2  # type: ignore[arg-type]
    assert len(list(reach.providers(_ASKED[0]))) == 1_000
    for number in range(1_000):
        reach.remove(f"dp-{number}")
    assert len(reach._index) == 0  # type: ignore[arg-type]
