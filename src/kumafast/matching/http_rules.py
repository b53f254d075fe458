"""The rules of MeshHTTPRoutes in the order in which they are asked about a request.

In: the merged conf of such routes. Out: each match with its rule, the most specific first. Never: where a rule leads.
Source of the order: the Gateway API's precedence of HTTPRoutes, as Kuma 2.14 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kumafast.resources.policies.mesh_http_route import EXACT, PREFIX

Conf: TypeAlias = Mapping[str, Any]

_EVERYTHING: Mapping[str, Any] = {"path": {"value": "/", "type": PREFIX}}


def in_order(conf: Conf) -> tuple[tuple[Conf, Conf], ...]:
    """Each match of each rule, as (match, rule): of those that a request meets the first counts.

    First an exact path, then the longest prefix, then the longest pattern, then any path; of these, those with a
    method, then those with more headers, then with more parameters; of equals, in the order of the rules.
    """
    pairs = [(match, rule) for rule in conf.get("rules", ()) for match in rule.get("matches", ())]
    return tuple(sorted(pairs, key=lambda pair: _breadth(pair[0])))


def takes_all(match: Conf) -> bool:
    """Whether it is the match of all requests that routes have at their end where none is written."""
    return match == _EVERYTHING


def _breadth(match: Conf) -> tuple[int, int, bool, int, int]:
    path, method = _path_breadth(match.get("path")), "method" not in match
    return (*path, method, -_count(match, "headers"), -_count(match, "queryParams"))


def _path_breadth(path: Conf | None) -> tuple[int, int]:
    if path is None:
        return 3, 0
    kind = path["type"]
    if kind == EXACT:
        return 0, 0
    return 1 if kind == PREFIX else 2, -len(path.get("value", ""))


def _count(match: Conf, field: str) -> int:
    return len(match.get(field, ()))
