"""Matching as the contract words it, in plain loops: the twin of TagSelector, SelectorSet and TagIndex.

In: dicts and lists. Out: what the core must answer. Never: an index, a cache, anything clever.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

Tags = Mapping[str, str]
Rank = tuple[int, int]


def matches(selector: Tags, tags: Tags) -> bool:
    return all(key in tags and value in ("*", tags[key]) for key, value in selector.items())


def matches_one(selector: Tags, inbounds: Sequence[Tags]) -> bool:
    return not selector or any(matches(selector, tags) for tags in inbounds)


def rank(selector: Tags) -> Rank:
    return len(selector), sum(value != "*" for value in selector.values())


def match_set(selectors: Iterable[tuple[int, Tags]], inbounds: Sequence[Tags]) -> list[tuple[int, Rank]]:
    best: dict[int, Rank] = {}
    for id, selector in selectors:
        if matches_one(selector, inbounds):
            best[id] = max(best.get(id, (0, 0)), rank(selector))
    return sorted(best.items())


def fingerprint(selectors: Iterable[tuple[int, Tags]], inbounds: Sequence[Tags]) -> bytes:
    return b"".join(struct.pack("=III", id, *rank) for id, rank in match_set(selectors, inbounds))


def match_index(selector: Tags | None, dataplanes: Mapping[int, Sequence[Tags]]) -> list[int]:
    if selector is None:
        return []
    return sorted(id for id, inbounds in dataplanes.items() if matches_one(selector, inbounds))


def affected(old: Tags | None, new: Tags | None, dataplanes: Mapping[int, Sequence[Tags]]) -> list[int]:
    return sorted(set(match_index(old, dataplanes)) ^ set(match_index(new, dataplanes)))


def match_all(selectors: Iterable[tuple[int, Tags]], dataplanes: Mapping[int, Sequence[Tags]]) -> dict[int, list[int]]:
    rows: dict[int, set[int]] = {}
    for id, selector in selectors:
        rows.setdefault(id, set()).update(match_index(selector, dataplanes))
    return {id: sorted(rows[id]) for id in sorted(rows)}
