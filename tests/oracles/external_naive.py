"""Who may reach what is outside, by the words of the rules: every permission against every tag.

In: permissions with the times of their creation, the tags of an external service and of a dataplane's inbounds.
Out: whether it may. Never: an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from kumafast.resources.policies.traffic_permission import TrafficPermission


def _matches(selector: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    return all(key in tags and value in ("*", tags[key]) for key, value in selector.items())


def _rank(selector: Mapping[str, str]) -> tuple[int, int]:
    return len(selector), sum(value != "*" for value in selector.values())


def may_reach(
    permissions: Sequence[tuple[TrafficPermission, datetime]],
    service: Mapping[str, str],
    inbounds: Iterable[Mapping[str, str]],
) -> bool:
    """Whether a dataplane may reach an external service."""
    if not permissions:
        return True
    found = []
    for permission, created in permissions:
        ranks = [_rank(each.match) for each in permission.destinations if _matches(each.match, service)]
        if ranks:
            found.append((max(ranks), created, permission))
    if not found:
        return False
    best = max(rank for rank, _, _ in found)
    newest = max(created for rank, created, _ in found if rank == best)
    equals = [each for rank, created, each in found if (rank, created) == (best, newest)]
    first = min(equals, key=lambda each: each.name)
    return any(_matches(source.match, tags) for source in first.sources for tags in inbounds)
