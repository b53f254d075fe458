"""What happens to a request by who sends it, as the contract words it, in plain loops: the twin of faults and limits.

In: stored policies, the tags of an inbound, the tags of each of a client's inbounds. Out: the fault and the limit.
Never: a header, a regular expression, an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.oracles.matching_naive import Rank, matches, rank

from kumafast.resources import Resource, to_document

Tags = Mapping[str, str]
Stored = tuple[Resource, datetime]


def is_source(source: Tags, client: Sequence[Tags]) -> bool:
    """A client has every tag that one of its inbounds has; which has which nobody can tell."""
    return all(any(key in tags and value in ("*", tags[key]) for tags in client) for key, value in source.items())


def fault(policies: Sequence[Stored], inbound: Tags, client: Sequence[Tags]) -> Any:
    """The conf of the one FaultInjection for an inbound, where the client is one of its sources."""
    best: tuple[Rank, datetime] | None = None
    winner: Any = None
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        document: Any = to_document(policy)
        for destination in document["destinations"]:
            match = destination["match"]
            if matches(match, inbound) and (best is None or (rank(match), created) > best):
                best, winner = (rank(match), created), document
    if winner is None or not any(is_source(source["match"], client) for source in winner["sources"]):
        return None
    return winner["conf"]


def limit(policies: Sequence[Stored], inbound: Tags, client: Sequence[Tags]) -> Any:
    """The limit of the most specific source that the client is, among all RateLimits for an inbound."""
    found: list[tuple[Rank, datetime, Any]] = []
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        document: Any = to_document(policy)
        if any(matches(destination["match"], inbound) for destination in document["destinations"]):
            found += [(rank(each["match"]), created, (each["match"], document["conf"])) for each in document["sources"]]
    found.sort(key=lambda each: each[:2], reverse=True)
    return next((conf for _, _, (source, conf) in found if is_source(source, client)), None)
