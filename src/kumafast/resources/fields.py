"""The values that the fields of resources hold: strict text and numbers, and read-only maps.

In: what YAML or JSON gave. Out: values that never change, compare by content and can be hashed.
Never: rules about what a text or number may be (`validation` has those).
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar, cast

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, AllowInfNan, GetCoreSchemaHandler, PlainSerializer, Strict, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

TEXT_LENGTH_MAX = 65536
_DEPTH_MAX = 64
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_COUNT_MAX = 2**32 - 1

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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.dict_schema())


def _sorted_map(tags: dict[str, str]) -> FrozenMap[str, str]:
    # Sorted, so that equal content is written as equal bytes, as Go does with its maps.
    # What a store gives back is sorted already, and copied at once.
    keys = list(tags)
    return FrozenMap(tags) if keys == sorted(keys) else FrozenMap(sorted(tags.items()))


class _TextMap:
    """How pydantic reads tags: the schema of a dict, which is several times faster than that of a Mapping."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, max_length=TEXT_LENGTH_MAX)
        return core_schema.no_info_after_validator_function(_sorted_map, core_schema.dict_schema(text, text))


def freeze(value: object, *, depth: int = 0) -> object:
    """The same JSON value with read-only maps and tuples all the way down; ValueError where it is not a JSON value."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"must not be nested more than {_DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("must have only texts as keys")
        return FrozenMap((_text(key), freeze(item, depth=depth + 1)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(freeze(item, depth=depth + 1) for item in value)
    if isinstance(value, str):
        return _text(value)
    # What a store could not write and read back is refused here, where its place in the document is known.
    is_number = isinstance(value, int | float) and (_INT_MIN <= value <= _INT_MAX or isinstance(value, float))
    if value is None or (is_number and math.isfinite(cast(float, value))):
        return value
    raise ValueError(f"must hold only JSON values, not {type(value).__name__} {str(value)[:40]!r}")


def _text(text: str) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must hold only text in UTF-8")
    return text


def thaw(value: object) -> object:
    """The opposite of `freeze`: dicts and lists, as JSON libraries make them."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


def _count(value: int) -> int:
    if not 0 <= value <= _COUNT_MAX:
        raise ValueError(f"must be a whole number between 0 and {_COUNT_MAX}")
    return value


def _int32(value: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise ValueError("must be a whole number of 32 bits")
    return value


def _shortest(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _base64(text: str) -> str:
    try:
        # As protobuf reads it: of either alphabet, and with or without its padding.
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return b64encode(b64decode(padded.translate(_URL_SAFE), validate=True)).decode()
    except (Base64Error, ValueError):
        raise ValueError("must be bytes in base64") from None


_URL_SAFE = str.maketrans("-_", "+/")

Text = Annotated[str, Strict(), MaxLen(TEXT_LENGTH_MAX)]
"""Text in UTF-8, of bounded length."""
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), Ge(_INT_MIN), Le(_INT_MAX)]
"""A whole number of 64 bits: neither text that looks like one nor a truth value. A narrower range is a rule."""
Count = Annotated[
    int,
    Strict(),
    AfterValidator(_count),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _COUNT_MAX}),
]
"""A whole number of 32 bits without a sign, as Envoy counts."""
Int32 = Annotated[int, Strict(), AfterValidator(_int32), WithJsonSchema({"type": "integer", "format": "int32"})]
"""A whole number of 32 bits; a narrower range is a rule."""
Number = Annotated[float, Strict(), AllowInfNan(False), PlainSerializer(_shortest, return_type=float | int)]
"""A number, written without decimals where it has none."""
Base64 = Annotated[Text, AfterValidator(_base64)]
"""Bytes, as the text that JSON has for them."""

Tags = Annotated[Mapping[str, str], _TextMap]
"""Tags or labels: text to text, read-only and sorted by key after validation."""

Loose = Annotated[dict[Text, Any], AfterValidator(freeze), PlainSerializer(thaw)]
"""A JSON object whose fields are given a meaning elsewhere; kept as it came, read-only."""
