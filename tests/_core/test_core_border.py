"""Whatever comes in, an exception goes out, of the promised kind, and what was there before is unchanged."""

from __future__ import annotations

import copy
import pickle
from collections import UserDict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest

from kumafast._core import (
    IdSet,
    Matches,
    SelectorSet,
    SnapshotDigest,
    TagIndex,
    TagSelector,
    TagSet,
    changed_snapshots,
    diff_versions,
    digest,
)

Made = Callable[[Any], object]

NOT_TAGS = [None, 1, "a", b"a", [("a", "b")], {1: "a"}, {"a": 1}, {"a": None}, {b"a": "b"}, {"a": b"b"}, object()]
NOT_TEXT = [{"\0": "a"}, {"a": "\0"}, {"a\0b": "c"}, {"\ud800": "a"}, {"a": "\udfff"}]
NOT_INBOUNDS = [None, 1, "", "a", b"", {"a": "b"}, [{"a": "b"}], [None], {TagSet()}, iter([TagSet()]), [TagSelector()]]
NOT_IDS = [None, "1", 1.0, b"1", TagSet()]
FAR_IDS = [-1, 2**32, 2**63, 2**64, 10**400, -(10**400)]


class Text(str):
    """A str that is not exactly one, with methods of its own."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("the core must not ask a subclass")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("the core must not ask a subclass")


def _name(value: object) -> str:
    # Without an address: tests have the same names in every process.
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


@pytest.mark.parametrize("make", [TagSet, TagSelector])
@pytest.mark.parametrize("tags", NOT_TAGS, ids=_name)
def test_tags_of_a_wrong_type(make: Made, tags: object) -> None:
    with pytest.raises(TypeError):
        make(tags)


@pytest.mark.parametrize("make", [TagSet, TagSelector])
@pytest.mark.parametrize("tags", NOT_TEXT, ids=ascii)
def test_tags_that_are_no_text(make: Made, tags: object) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        make(tags)


@pytest.mark.parametrize("make", [TagSet, TagSelector])
def test_any_mapping_of_text_will_do(make: Made) -> None:
    plain = make({"a": "ü", "": ""})
    assert make(UserDict({"a": "ü", "": ""})) == plain
    assert make(MappingProxyType({"a": "ü", "": ""})) == plain
    assert make({"a": Text("ü"), "": Text("")}) == plain


def test_a_dict_of_another_class_is_read_as_a_dict_of_it_would_be() -> None:
    class Plain(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            raise LookupError("no")

    class Iterating(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            return iter(["b"])

        def keys(self) -> Any:
            return {"b": ""}.keys()

        def __getitem__(self, key: str) -> str:
            return "2"

    assert TagSet(Plain(a="1")).as_dict() == dict(Plain(a="1")) == {"a": "1"}
    assert TagSet(Iterating(a="1")).as_dict() == dict(Iterating(a="1")) == {"b": "2"}
    assert diff_versions(Plain(a="1"), Plain(a="2")) == (["a"], [])
    assert diff_versions(Iterating(a="1"), {"b": "2"}) == ([], [])
    with pytest.raises(TypeError):
        TagSet(Plain({"a": 1}))  # type: ignore[dict-item]


def test_a_mapping_that_lies_is_refused() -> None:
    class Liar(UserDict[str, str]):
        def __iter__(self) -> Iterator[str]:
            raise LookupError("no")

    with pytest.raises(LookupError):
        TagSet(Liar(a="b"))


def test_huge_tags_are_only_slow() -> None:
    long = "x" * 10_000_000
    tags = TagSet({long: long, **{f"k{at}": f"v{at}" for at in range(100_000)}})
    assert len(tags) == 100_001
    assert TagSelector({long: long, "k99999": "*"}).matches(tags)
    index = TagIndex([(0, tags)])
    assert list(index.match(TagSelector({"k77777": "v77777", "k3": "*"}))) == [0]
    assert SelectorSet([(1, TagSelector(tags.as_dict()))]).match(tags) == [(1, (100_001, 100_001))]


@pytest.mark.parametrize("inbounds", NOT_INBOUNDS, ids=_name)
def test_inbounds_of_a_wrong_type(inbounds: Any) -> None:
    index = TagIndex([(1, TagSet())])
    for call in (
        lambda: index.add(2, inbounds),
        lambda: index.update(1, inbounds),
        lambda: SelectorSet().match(inbounds),
        lambda: SelectorSet().fingerprint(inbounds),
    ):
        with pytest.raises(TypeError):
            call()
    assert list(index.match(TagSelector())) == [1]


@pytest.mark.parametrize(("ids", "error"), [(NOT_IDS, TypeError), (FAR_IDS, OverflowError)])
def test_ids_that_are_none(ids: list[Any], error: type[Exception]) -> None:
    index = TagIndex([(1, TagSet())])
    for id in ids:
        for call in (
            lambda id=id: index.add(id, TagSet()),
            lambda id=id: index.update(id, TagSet()),
            lambda id=id: index.remove(id),
            lambda id=id: TagIndex([(id, TagSet())]),
            lambda id=id: SelectorSet([(id, TagSelector())]),
            lambda id=id: SelectorSet().added([(id, TagSelector())]),
            lambda id=id: SelectorSet().removed([id]),
        ):
            with pytest.raises(error):
                call()
        assert id not in index
        assert id not in index.match(TagSelector())


def test_ids_at_the_edge() -> None:
    index = TagIndex([(0, TagSet({"a": "b"})), (2**32 - 1, TagSet({"a": "b"}))])
    assert list(index.match(TagSelector({"a": "b"}))) == [0, 2**32 - 1]
    assert 2**32 - 1 in index.match(TagSelector({"a": "*"}))
    edges = SelectorSet([(2**32 - 1, TagSelector()), (0, TagSelector())])
    assert edges.match([]) == [(0, (0, 0)), (2**32 - 1, (0, 0))]
    assert len(edges.removed([0, 0, 5])) == 1


def test_an_id_that_is_there_or_not() -> None:
    index = TagIndex([(1, TagSet({"a": "b"}))])
    with pytest.raises(KeyError, match="1"):
        index.add(1, TagSet())
    with pytest.raises(KeyError, match="1"):
        TagIndex([(1, TagSet()), (1, TagSet())])
    with pytest.raises(KeyError, match="2"):
        index.update(2, TagSet())
    with pytest.raises(KeyError, match="2"):
        index.remove(2)
    assert list(index.match(TagSelector({"a": "b"}))) == [1]


@pytest.mark.parametrize(
    "each", [None, 1, (1,), (1, 2), (1, TagSet(), 3), [1, TagSelector()], (1, None), "ab"], ids=repr
)
def test_pairs_of_a_wrong_form(each: Any) -> None:
    for call in (
        lambda: SelectorSet([each]),
        lambda: SelectorSet().added([each]),
        lambda: TagIndex([each]),
        lambda: SnapshotDigest([each]),
    ):
        with pytest.raises(TypeError):
            call()


def test_other_arguments_of_a_wrong_type() -> None:
    index: Any = TagIndex()
    selectors: Any = SelectorSet()
    selector: Any = TagSelector()
    for wrong in (None, 1, "a", {}, object()):
        for call in (index.match, index.match_all, selector.matches):
            with pytest.raises(TypeError):
                call(wrong)
    for wrong in (1, "a", {}, TagSet(), object()):
        with pytest.raises(TypeError):
            index.affected(wrong, None)
        with pytest.raises(TypeError):
            index.affected(None, wrong)
    with pytest.raises(TypeError):
        selectors.added(None)
    with pytest.raises(TypeError):
        SelectorSet(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        selectors.removed("1")


def test_an_iterable_that_fails_changes_nothing() -> None:
    def failing() -> Iterator[tuple[int, TagSelector]]:
        yield 1, TagSelector()
        raise LookupError("no")

    before = SelectorSet([(5, TagSelector())])
    with pytest.raises(LookupError):
        before.added(failing())
    assert before.match([]) == [(5, (0, 0))]


def test_results_are_read_only_and_outlive_their_makers() -> None:
    index = TagIndex([(id, TagSet({"a": "b"})) for id in range(100)])
    array = index.match(TagSelector({"a": "b"})).to_array()
    matches = index.match_all(SelectorSet([(7, TagSelector())]))
    ids = matches.ids
    del index, matches
    assert array.tolist() == ids.tolist() == list(range(100))
    assert (array.format, array.readonly, ids.format, ids.readonly) == ("I", True, "I", True)
    with pytest.raises(TypeError):
        array[0] = 1
    assert IdSet().to_array().tolist() == []
    assert len(Matches()) == 0


def test_equality_hashing_copies() -> None:
    assert TagSet({"a": "b", "c": "d"}) == TagSet({"c": "d", "a": "b"})
    assert hash(TagSet({"a": "b"})) == hash(TagSet({"a": "b"}))
    assert TagSet({"a": "*"}) != TagSet({"a": "b"})
    assert TagSet({"a": "b"}) != TagSelector({"a": "b"})
    assert TagSelector({"a": "*"}) != TagSelector({"a": "b"})
    assert TagSelector({"a": "*"}).as_dict() == {"a": "*"}
    for value in (TagSet({"a": "b"}), TagSelector({"a": "*", "b": "c"})):
        assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
        assert repr(value) == f"{type(value).__name__}({value.as_dict()!r})"
    index = TagIndex([(1, TagSet({"a": "b"})), (2, TagSet({"a": "c"}))])
    one, same = index.match(TagSelector({"a": "b"})), index.match(TagSelector({"a": "b"}))
    assert one == same
    assert hash(one) == hash(same)
    assert one != index.match(TagSelector())
    assert one != {1}
    for mutable in (index, SelectorSet(), one):
        with pytest.raises(TypeError):
            pickle.dumps(mutable)


def test_digests() -> None:
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        assert digest(data) == digest(b"abc")
    for wrong in ("abc", None, 3, [1]):
        with pytest.raises(TypeError):
            digest(wrong)  # type: ignore[arg-type]
    snapshot: Any = SnapshotDigest([("a", "1")])
    before = snapshot.value
    for name, version in ((1, "1"), ("a", None), (b"a", "1")):
        for change, arguments in (
            (snapshot.add, (name, version)),
            (snapshot.remove, (name, version)),
            (snapshot.replace, (name, "1", version)),
        ):
            with pytest.raises(TypeError):
                change(*arguments)
    with pytest.raises(TypeError):
        snapshot.add_all(None)
    with pytest.raises(TypeError):
        snapshot.plus(None)
    for pair in (("a\0", "1"), ("a", "\0"), ("\ud800", "1")):
        with pytest.raises(ValueError, match=r"NUL|surrogates"):
            snapshot.add(*pair)
    with pytest.raises(ValueError, match="NUL"):
        snapshot.replace("a", "1", "\0")
    assert snapshot.value == before


def test_changed_snapshots() -> None:
    one, other = bytes(16), bytes(15) + b"\1"
    assert changed_snapshots([], ()) == []
    assert changed_snapshots((one, one), [one, other]) == [1]
    for wrong in (None, 1, "", b"", {one}, [None], ["x" * 16], [bytearray(16)]):
        with pytest.raises(TypeError):
            changed_snapshots(wrong, [one])  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            changed_snapshots([one], wrong)  # type: ignore[arg-type]
    for before, after in (([one], []), ([], [one]), ([b""], [b""]), ([bytes(17)], [one])):
        with pytest.raises(ValueError, match=r"16 bytes|before"):
            changed_snapshots(before, after)


def test_diff_versions() -> None:
    for wrong in (None, 1, "a", [("a", "b")], {1: "a"}, {"a": 1}, {b"a": "b"}):
        for held, wanted in ((wrong, {"a": "1"}), ({"a": "1"}, wrong)):
            with pytest.raises(TypeError):
                diff_versions(held, wanted)  # type: ignore[arg-type]
    assert diff_versions(UserDict(a="1"), MappingProxyType({"a": Text("2")})) == (["a"], [])
    assert diff_versions({"a": "\ud800\0"}, {"a": "\ud800"}) == (["a"], [])
