"""The values that the fields of resources hold: strict text and numbers, and read-only maps.

In: what YAML or JSON gave. Out: values that never change, compare by content and can be hashed.
Never: rules about what a text or number may be (`validation` has those).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, GetCoreSchemaHandler, PlainSerializer, Strict
from pydantic_core import CoreSchema, core_schema

K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(dict[K, V]):
    """A mapping that cannot be changed and can be hashed. It is a dict, so that reading it costs what a dict costs."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a resource cannot be changed; make a new one, for example with model_copy(update=...)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenMap[K, V]], tuple[dict[K, V]]]:
        # The default way to copy a dict subclass sets item by item, which is refused.
        return type(self), (dict(self),)

    def __repr__(self) -> str:
        return dict.__repr__(self)


def _sorted_map(tags: dict[str, str]) -> FrozenMap[str, str]:
    # Sorted, so that equal content is written as equal bytes, as Go does with its maps.
    return FrozenMap(sorted(tags.items())) if len(tags) > 1 else FrozenMap(tags)


class _TextMap:
    """How pydantic reads tags: the schema of a dict, which is several times faster than that of a Mapping."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True)
        return core_schema.no_info_after_validator_function(_sorted_map, core_schema.dict_schema(text, text))


def freeze(value: object) -> object:
    """The same JSON value with read-only maps and tuples all the way down."""
    if isinstance(value, Mapping):
        return FrozenMap((key, freeze(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: object) -> object:
    """The opposite of `freeze`: dicts and lists, as JSON libraries make them."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
"""A whole number: neither text that looks like one nor a truth value. Its range is a rule, not structure."""

Tags = Annotated[Mapping[str, str], _TextMap]
"""Tags or labels: text to text, read-only and sorted by key after validation."""

Loose = Annotated[dict[str, Any], AfterValidator(freeze), PlainSerializer(thaw)]
"""A JSON object whose fields are given a meaning elsewhere; kept as it came, read-only."""
