"""Reading a request's body as one JSON object.

In: a request of an untrusted client. Out: the object, or an error that says what is wrong. Never: a body beyond the
limits in memory.

As in Kuma the content type is not looked at, and of a key that comes twice the last value counts.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request

from kumafast.errors import MalformedResourceError
from kumafast.rest.errors import BodyTooLargeError

BODY_BYTES_MAX: Final = 4 * 1024 * 1024

# The deepest resource of Kuma has about a dozen levels. What walks a document may recurse, so the limit is well
# below Python's.
NESTING_MAX: Final = 64

_DIGITS_MAX: Final = 18


async def read_object(request: Request, *, bytes_max: int = BODY_BYTES_MAX) -> dict[str, Any]:
    """The body as a JSON object, of at most `bytes_max` bytes.

    Raises `BodyTooLargeError`, and `MalformedResourceError` for what is not UTF-8, not JSON or not an object.
    """
    return parse_object(await _read(request, bytes_max), what="the body")


def parse_object(text: bytes | str, *, what: str) -> dict[str, Any]:
    """A JSON object from its text; `what` names the text in errors. Raises `MalformedResourceError`."""
    try:
        document = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise MalformedResourceError(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedResourceError(f"{what} must be a JSON object, not {_name_of(document)}")
    _check_nesting(document, what=what)
    return document


async def _read(request: Request, bytes_max: int) -> bytes:
    announced = request.headers.get("content-length", "")
    # By its length first: Python refuses to read a number of thousands of digits.
    if announced.isdecimal() and (len(announced) > _DIGITS_MAX or int(announced) > bytes_max):
        raise BodyTooLargeError(bytes_max)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLargeError(bytes_max)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise MalformedResourceError("the body ended early") from error
    return b"".join(chunks)


def _check_nesting(document: dict[str, Any], *, what: str) -> None:
    level: list[Any] = [document]
    for _ in range(NESTING_MAX):
        children = (value for node in level for value in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise MalformedResourceError(f"{what} is nested more than {NESTING_MAX} levels deep")


def _name_of(value: object) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return names[type(value)]
