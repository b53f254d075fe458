"""Lists in pages, as Kuma's clients ask for them.

In: `size`, `offset` and filters of a query, encoded items. Out: one page as bytes. Never: a page of unlimited size.

The offset is opaque to clients; here it is a position. A page is a join of bytes that are encoded already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson
from starlette.requests import Request

from kumafast.errors import Violation
from kumafast.rest.errors import InvalidQueryError

SIZE_DEFAULT: Final = 100
SIZE_MAX: Final = 1000

LIST_QUERY: Final = ("size", "offset", "name", "filter[labels.KEY]")

_LABEL_FILTER: Final = re.compile(r"filter\[labels\.(.+)\]")
_DIGITS_MAX: Final = 18

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for."""

    size: int
    offset: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this page."""
        return items[self.offset : self.offset + self.size]


def window(request: Request) -> Window:
    """The page that a request asks for. Raises `InvalidQueryError`."""
    size = _number(request.query_params.get("size"), default=SIZE_DEFAULT)
    if size is None or size == 0:
        raise InvalidQueryError("Invalid page size", Violation("size", "invalid format"))
    if size > SIZE_MAX:
        message = f"invalid page size of {size}. Maximum page size is {SIZE_MAX}"
        raise InvalidQueryError("Invalid page size", Violation("size", message))
    offset = _number(request.query_params.get("offset"), default=0)
    if offset is None:
        raise InvalidQueryError("Invalid offset", Violation("offset", "invalid format"))
    return Window(size=size, offset=offset)


def label_filters(request: Request) -> Mapping[str, str]:
    """What `filter[labels.K]=V` asks for. Raises `InvalidQueryError` for a filter that is not understood."""
    found: dict[str, str] = {}
    for parameter, value in request.query_params.multi_items():
        if not parameter.startswith("filter"):
            continue
        match = _LABEL_FILTER.fullmatch(parameter)
        if match is None:
            message = "only filter[labels.KEY]=VALUE is understood"
            raise InvalidQueryError("Invalid filter", Violation(parameter, message))
        if found.setdefault(match[1], value) != value:
            message = "must not be given twice with different values"
            raise InvalidQueryError("Invalid filter", Violation(parameter, message))
    return found


def page(request: Request, encoded: Iterable[bytes], *, total: int, window: Window) -> bytes:
    """One page of a list of `total` items as JSON; `next` leads to the one after it, with the same filters."""
    following = next_page(request, total=total, window=window)
    return b'{"total":%d,"items":[%s],"next":%s}' % (total, b",".join(encoded), orjson.dumps(following))


def next_page(request: Request, *, total: int, window: Window) -> str | None:
    """The address of the page after this one, with the same filters; None where this is the last."""
    end = window.offset + window.size
    return str(request.url.include_query_params(offset=end, size=window.size)) if end < total else None


def _number(text: str | None, *, default: int) -> int | None:
    if text is None or text == "":
        return default
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else None
