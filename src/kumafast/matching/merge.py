"""Merging what several policies say into one conf.

In: confs as JSON objects, those of less weight first. Out: a new one. Never: what a field means, but for its name:
lists whose name begins with `append` are joined, all else follows RFC 7396.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kumafast.resources.fields import FrozenMap, freeze

_APPENDED = "append"


def merge(confs: Iterable[Mapping[str, Any]]) -> FrozenMap[str, Any]:
    """All confs as one: objects are merged, a later value or list replaces an earlier one, null removes.

    >>> merge([{"http": {"retries": 1, "on": ["5xx"]}}, {"http": {"on": ["reset"]}}])
    {'http': {'retries': 1, 'on': ('reset',)}}
    """
    merged: dict[str, Any] = {}
    for conf in confs:
        merged = _patched(merged, conf)
    frozen = freeze(merged)
    assert isinstance(frozen, FrozenMap)
    return frozen


def _patched(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(target)
    for key, value in patch.items():
        before = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = _patched(before if isinstance(before, Mapping) else {}, value)
        elif key.startswith(_APPENDED) and isinstance(value, list | tuple):
            result[key] = [*(before if isinstance(before, list | tuple) else ()), *value]
        else:
            result[key] = value
    return result
