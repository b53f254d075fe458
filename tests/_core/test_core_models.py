"""Any order of changes leaves the core where its naive twin is: state machines for each class that changes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests._core.worlds import Tags, rows_of, tag_sets
from tests.oracles import digest_naive
from tests.oracles import matching_naive as naive

from kumafast._core import SelectorSet, SnapshotDigest, TagIndex, TagSelector, TagSet

_KEYS = st.sampled_from(["a", "b", "ключ", ""])
_TAGS = st.dictionaries(_KEYS, st.sampled_from(["x", "y", "*", ""]), max_size=4)
_INBOUNDS = st.lists(_TAGS, max_size=3)
# Neighbours, ids that share a word of bits, and ids as far apart as they can be.
_IDS = st.one_of(st.integers(0, 200), st.sampled_from([2**16, 2**31, 2**32 - 2, 2**32 - 1]))
_ENTRIES = st.lists(st.tuples(st.integers(0, 30), _TAGS), max_size=8)


class TagIndexMachine(RuleBasedStateMachine):
    """add, update, remove, match in any order, against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.index = TagIndex()
        self.model: dict[int, list[Tags]] = {}

    @initialize(dataplanes=st.dictionaries(_IDS, _INBOUNDS, max_size=20))
    def load(self, dataplanes: dict[int, list[Tags]]) -> None:
        self.index = TagIndex((id, tag_sets(inbounds)) for id, inbounds in dataplanes.items())
        self.model = dict(dataplanes)

    @rule(id=_IDS, inbounds=_INBOUNDS)
    def put(self, id: int, inbounds: list[Tags]) -> None:
        try:
            self.index.add(id, tag_sets(inbounds))
            assert id not in self.model
        except KeyError:
            assert id in self.model
            self.index.update(id, tag_sets(inbounds))
        self.model[id] = inbounds

    @rule(first=st.integers(0, 150), count=st.integers(1, 300), tags=_TAGS)
    def add_many(self, first: int, count: int, tags: Tags) -> None:
        """Enough at once to turn arrays into bits."""
        shared = TagSet(tags)
        for id in set(range(first, first + count)) - self.model.keys():
            self.index.add(id, shared)
            self.model[id] = [tags]

    @rule(keep=st.integers(1, 20))
    def remove_many(self, keep: int) -> None:
        """Enough at once to turn bits into arrays again."""
        for id in [id for id in self.model if id % 20 >= keep]:
            self.index.remove(id)
            del self.model[id]

    @rule(id=_IDS)
    def remove(self, id: int) -> None:
        try:
            self.index.remove(id)
            assert self.model.pop(id, None) is not None
        except KeyError:
            assert id not in self.model

    @rule(selector=_TAGS)
    def match(self, selector: Tags) -> None:
        found = self.index.match(TagSelector(selector))
        expected = naive.match_index(selector, self.model)
        assert list(found) == found.to_array().tolist() == expected
        assert all(id in found for id in expected)

    @rule(old=st.none() | _TAGS, new=st.none() | _TAGS)
    def affected(self, old: Tags | None, new: Tags | None) -> None:
        found = self.index.affected(
            None if old is None else TagSelector(old), None if new is None else TagSelector(new)
        )
        assert list(found) == naive.affected(old, new, self.model)

    @rule(entries=_ENTRIES)
    def match_all(self, entries: list[tuple[int, Tags]]) -> None:
        found = self.index.match_all(SelectorSet((id, TagSelector(match)) for id, match in entries))
        assert rows_of(found) == naive.match_all(entries, self.model)

    @invariant()
    def holds_the_same_ids(self) -> None:
        assert len(self.index) == len(self.model)
        assert all(id in self.index for id in self.model)


class SelectorSetMachine(RuleBasedStateMachine):
    """Derived sets: each one made stays what it was, whatever is made from it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[SelectorSet, list[tuple[int, Tags]]]] = [(SelectorSet(), [])]

    def pick(self, at: int) -> tuple[SelectorSet, list[tuple[int, Tags]]]:
        return self.made[at % len(self.made)]

    @initialize(entries=_ENTRIES)
    def build(self, entries: list[tuple[int, Tags]]) -> None:
        self.made.append((SelectorSet([(id, TagSelector(match)) for id, match in entries]), entries))

    @rule(at=st.integers(0), entries=_ENTRIES)
    def add(self, at: int, entries: list[tuple[int, Tags]]) -> None:
        origin, held = self.pick(at)
        self.made.append((origin.added((id, TagSelector(match)) for id, match in entries), held + entries))

    @rule(at=st.integers(0), first=st.integers(0, 1000), count=st.sampled_from([1, 70]), tags=_TAGS)
    def add_many(self, at: int, first: int, count: int, tags: Tags) -> None:
        """Enough at once to have the shared table built anew."""
        self.add(at, [(first + step, tags) for step in range(count)])

    @rule(at=st.integers(0), gone=st.lists(st.integers(0, 1100) | st.integers(0, 30), max_size=90))
    def remove(self, at: int, gone: list[int]) -> None:
        origin, held = self.pick(at)
        self.made.append((origin.removed(gone), [entry for entry in held if entry[0] not in gone]))

    @rule(inbounds=_INBOUNDS)
    def match(self, inbounds: list[Tags]) -> None:
        for derived, entries in self.made:
            assert derived.match(tag_sets(inbounds)) == naive.match_set(entries, inbounds)
            assert derived.fingerprint(tag_sets(inbounds)) == naive.fingerprint(entries, inbounds)

    @rule(dataplanes=st.dictionaries(_IDS, _INBOUNDS, max_size=5))
    def match_all(self, dataplanes: dict[int, list[Tags]]) -> None:
        index = TagIndex((id, tag_sets(inbounds)) for id, inbounds in dataplanes.items())
        for derived, entries in self.made:
            assert rows_of(index.match_all(derived)) == naive.match_all(entries, dataplanes)

    @invariant()
    def counts_ids(self) -> None:
        for derived, entries in self.made:
            assert len(derived) == len({id for id, _ in entries})


class SnapshotDigestMachine(RuleBasedStateMachine):
    """Any order of add, remove and replace is the sum of what is there."""

    names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)
    versions = st.sampled_from(["", "1", "2", "6b94f33b9e09e71c40ff35b6a60b7ec8"])

    def __init__(self) -> None:
        super().__init__()
        self.digest = SnapshotDigest()
        self.model: list[tuple[str, str]] = []

    @rule(name=names, version=versions)
    def add(self, name: str, version: str) -> None:
        self.digest.add(name, version)
        self.model.append((name, version))

    @rule(at=st.integers(0))
    def remove(self, at: int) -> None:
        if self.model:
            self.digest.remove(*self.model.pop(at % len(self.model)))

    @rule(at=st.integers(0), version=versions)
    def replace(self, at: int, version: str) -> None:
        if self.model:
            name, old = self.model.pop(at % len(self.model))
            self.digest.replace(name, old, version)
            self.model.append((name, version))

    @rule(layer=st.lists(st.tuples(names, versions), max_size=3))
    def add_layer(self, layer: list[tuple[str, str]]) -> None:
        self.digest.add_all(SnapshotDigest(layer))
        self.model += layer

    @rule(layer=st.lists(st.tuples(names, versions), max_size=3))
    def go_on_with_another(self, layer: list[tuple[str, str]]) -> None:
        before, value = self.digest, self.digest.value
        self.digest = before.plus(SnapshotDigest(layer))
        assert before.value == value
        self.model += layer

    @rule(size=st.integers(0, 4))
    def remove_layer(self, size: int) -> None:
        self.digest.remove_all(SnapshotDigest(self.model[:size]))
        del self.model[:size]

    @invariant()
    def is_the_sum(self) -> None:
        assert self.digest.value == digest_naive.snapshot_digest(self.model)


_PROFILE = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTagIndexModel = TagIndexMachine.TestCase
TestTagIndexModel.settings = _PROFILE
TestSelectorSetModel = SelectorSetMachine.TestCase
TestSelectorSetModel.settings = _PROFILE
TestSnapshotDigestModel = SnapshotDigestMachine.TestCase
TestSnapshotDigestModel.settings = _PROFILE
