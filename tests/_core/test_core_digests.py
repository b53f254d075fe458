"""Digests are the xxhash package's, of every length, and sums of them; differences are the twin's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.oracles import diff_naive, digest_naive
from xxhash import xxh3_128_digest

from kumafast._core import SnapshotDigest, changed_snapshots, diff_versions, digest

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_MAPS = st.dictionaries(st.text(max_size=3), st.sampled_from(["1", "2", "3"]), max_size=12)
_DIGESTS = st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.booleans()), max_size=30)


def test_a_pair_of_any_length_has_the_package_s_digest() -> None:
    """The core digests up to 240 bytes itself, in seven length classes; the package does the others."""
    for size in range(700):
        data = bytes(1 + (at * 7 + size * 31) % 127 for at in range(size))
        for cut in {0, size // 3, size}:
            name, version = data[:cut].decode(), data[cut:].decode()
            assert SnapshotDigest([(name, version)]).value == xxh3_128_digest(data[:cut] + b"\0" + data[cut:])


def test_digest_is_xxh3_128() -> None:
    assert digest(b"").hex() == "99aa06d3014798d86001c324468d497f"
    for size in (0, 1, 17, 241, 100_000):
        assert digest(bytes(size)) == xxh3_128_digest(bytes(size))


@given(st.lists(st.tuples(_TEXT, _TEXT), max_size=20), st.randoms(use_true_random=False))
def test_order_does_not_matter(items: list[tuple[str, str]], random: object) -> None:
    assert SnapshotDigest(items).value == digest_naive.snapshot_digest(items)
    assert SnapshotDigest(sorted(items)).value == SnapshotDigest(reversed(items)).value


def test_carries_and_borrows_cross_the_middle() -> None:
    """Sums around 0, 2**64 and 2**128: enough pairs that both halves wrap many times."""
    items = [(f"resource-{at}", f"{at % 13}") for at in range(2_000)]
    snapshot = SnapshotDigest()
    for at, (name, version) in enumerate(items):
        snapshot.add(name, version)
        if at % 97 == 0:
            assert snapshot.value == digest_naive.snapshot_digest(items[: at + 1])
    for name, version in items:
        snapshot.remove(name, version)
    assert snapshot.value == bytes(16)
    snapshot.remove("never", "there")
    snapshot.add("never", "there")
    assert snapshot.value == bytes(16)


def test_name_and_version_cannot_be_shifted_into_each_other() -> None:
    assert SnapshotDigest([("ab", "c")]).value != SnapshotDigest([("a", "bc")]).value
    assert SnapshotDigest([("", "a")]).value != SnapshotDigest([("a", "")]).value


@given(_DIGESTS)
def test_changed_snapshots(rows: list[tuple[bytes, bool]]) -> None:
    before = [old for old, _ in rows]
    after = [bytes([old[0] ^ 1]) + old[1:] if changed else bytes(bytearray(old)) for old, changed in rows]
    assert changed_snapshots(before, tuple(after)) == digest_naive.changed_snapshots(before, after)


@given(_MAPS, _MAPS)
def test_diff_versions(held: dict[str, str], wanted: dict[str, str]) -> None:
    assert diff_versions(held, wanted) == diff_naive.diff_versions(held, wanted)
    mixed = {**held, **wanted}
    assert diff_versions(held, mixed) == diff_naive.diff_versions(held, mixed)
    assert diff_versions(mixed, held) == diff_naive.diff_versions(mixed, held)
    assert diff_versions(held, held) == diff_versions(held, dict(held)) == ([], [])
