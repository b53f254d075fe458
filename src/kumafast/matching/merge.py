"""Merging what several policies say into one conf.

In: confs as JSON objects, those of less weight first. Out: a new one; which of them each of its fields is from.
Never: what a field means, but for its name: lists that begin with `append` are joined, `rules` with matches are merged
by these, all else follows RFC 7396.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from kumafast.resources.fields import FrozenMap, freeze

Path: TypeAlias = tuple[str, ...]
"""A field of a conf: the names that lead to it."""

_APPENDED = "append"
_BY_KEY, _KEY = "rules", "matches"


def merge(confs: Iterable[Mapping[str, Any]]) -> FrozenMap[str, Any]:
    """All confs as one: objects are merged, a later value or list replaces an earlier one, null removes.

    Of rules with the same matches one is made; those of later confs come first, for the first that matches counts.

    >>> merge([{"http": {"retries": 1, "on": ["5xx"]}}, {"http": {"on": ["reset"]}}])
    {'http': {'retries': 1, 'on': ('reset',)}}
    >>> merge([{"rules": [{"matches": "a", "x": 1}, {"matches": "b"}]}, {"rules": [{"matches": "a", "y": 2}]}])
    {'rules': ({'matches': 'a', 'x': 1, 'y': 2}, {'matches': 'b'})}
    """
    merged: FrozenMap[str, Any] = FrozenMap()
    for conf in confs:
        merged = _patched(merged, _frozen(conf))
    return merged


def _frozen(conf: Mapping[str, Any]) -> FrozenMap[str, Any]:
    # What policies say is frozen when they are compiled, and what is made of frozen parts is frozen.
    if isinstance(conf, FrozenMap):
        return conf
    frozen = freeze(conf)
    assert isinstance(frozen, FrozenMap)
    return frozen


def _patched(target: Mapping[str, Any], patch: Mapping[str, Any]) -> FrozenMap[str, Any]:
    result = dict(target)
    for key, value in patch.items():
        before = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = _patched(before if isinstance(before, Mapping) else {}, value)
        elif key.startswith(_APPENDED) and isinstance(value, list | tuple):
            result[key] = (*(before if isinstance(before, list | tuple) else ()), *value)
        elif _is_by_key(key, value):
            result[key] = _by_matches([*reversed(before or ()), *reversed(value)])
        else:
            result[key] = value
    return FrozenMap(result)


def _is_by_key(key: str, value: Any) -> bool:
    return key == _BY_KEY and isinstance(value, list | tuple) and any(_KEY in item for item in value)


def _by_matches(rules: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """One rule for each key; these come in reverse, so that the last of a key says what counts and where it stands."""
    found: dict[Any, Mapping[str, Any]] = {}
    for rule in rules:
        key = rule.get(_KEY)
        known = found.pop(key, None)
        found[key] = rule if known is None else _patched(known, rule)
    return tuple(reversed(found.values()))


def givers(confs: Iterable[Mapping[str, Any]]) -> dict[Path, tuple[int, ...]]:
    """Which of the confs each field of `merge(confs)` is from: by its path, the positions of those that gave it.

    >>> givers([{"http": {"retries": 1, "on": ["5xx"]}}, {"http": {"on": ["reset"]}}])
    {('http', 'retries'): (0,), ('http', 'on'): (1,)}
    """
    found: dict[Path, tuple[int, ...]] = {}
    merged: FrozenMap[str, Any] = FrozenMap()
    for position, conf in enumerate(map(_frozen, confs)):
        _give(found, (), merged, conf, position)
        merged = _patched(merged, conf)
    return found


def _give(
    found: dict[Path, tuple[int, ...]], path: Path, target: Mapping[str, Any], patch: Mapping[str, Any], position: int
) -> None:
    for key, value in patch.items():
        here, before = (*path, key), target.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            _give(found, here, before, value, position)
            continue
        joined: tuple[int, ...] = ()
        is_joined = key.startswith(_APPENDED) or _is_by_key(key, value)
        if is_joined and isinstance(value, list | tuple) and isinstance(before, list | tuple):
            joined = found.get(here, ())
        for gone in [each for each in found if each[: len(here)] == here]:
            del found[gone]
        if isinstance(value, Mapping):
            _give(found, here, {}, value, position)
        elif value is not None:
            found[here] = (*joined, position)


def leaves(conf: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The paths of all that a conf says, but for objects, which are what stands in them."""
    for key, value in conf.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        elif value is not None:
            yield (*path, key)
