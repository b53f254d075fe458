"""Snapshot digests as their definition words them: a sum of the xxhash package's digests.

In: pairs of name and version, once for each time they are there. Out: 16 bytes. Never: an update in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xxhash import xxh3_128_intdigest


def snapshot_digest(items: Iterable[tuple[str, str]]) -> bytes:
    total = sum(xxh3_128_intdigest(f"{name}\0{version}".encode()) for name, version in items)
    return (total % 2**128).to_bytes(16, "big")


def changed_snapshots(before: Sequence[bytes], after: Sequence[bytes]) -> list[int]:
    return [at for at in range(len(before)) if before[at] != after[at]]
