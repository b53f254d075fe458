"""What a resource has in common with the one that it replaces, held once.

In: a resource that was read just now, the one before it. Out: the same resource, with the values of that one wherever
they are equal. Never: a value that only compares equal, as `True` does with `1`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from kumafast.resources.resource import Frozen, Resource

R = TypeVar("R", bound=Resource)


def sharing(new: R, before: Resource) -> R:
    """The same resource. What many hold goes on being one value for all when one of them is written anew.

    `new` must be nobody else's yet: it is rearranged in place. O(its size).
    """
    shared = _shared(new, before)
    return shared if isinstance(shared, type(new)) else new


def _shared(new: Any, before: Any) -> Any:
    """`before`, where it is the very same value; else `new`, with what is the same in both taken from `before`."""
    if new is before or type(new) is not type(before):
        return new
    if isinstance(new, str | int):
        return before if new == before else new
    if isinstance(new, tuple):
        return _shared_items(new, before)
    if isinstance(new, dict):
        # A map is all or nothing: it is not written to, and a copy would be another.
        is_same = list(new) == list(before) and all(_shared(new[key], before[key]) is before[key] for key in new)
        return before if is_same else new
    if isinstance(new, Frozen):
        return _shared_fields(new, before)
    return new


def _shared_items(new: tuple[Any, ...], before: tuple[Any, ...]) -> tuple[Any, ...]:
    items = tuple(map(_shared, new, before))
    if len(new) != len(before):
        return items + new[len(items) :]
    return before if all(map(_is, items, before)) else items


def _shared_fields(new: Frozen, before: Frozen) -> Frozen:
    fields = new.__dict__
    # What was not given is a default, which is everybody's.
    for name in new.model_fields_set:
        # It is the same value, so nobody can tell.
        fields[name] = _shared(fields[name], before.__dict__[name])
    is_same = all(fields[name] is before.__dict__[name] for name in type(new).model_fields)
    return before if is_same and new.model_fields_set == before.model_fields_set else new


def _is(one: object, other: object) -> bool:
    return one is other
