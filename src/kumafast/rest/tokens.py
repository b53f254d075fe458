"""`POST /tokens/dataplane` and `POST /tokens/user`: new tokens, for administrators.

In: what the token is to say. Out: the token as plain text. Never: a token that is stored or logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kumafast.errors import InvalidResourceError, Violation
from kumafast.identity.token_keys import TokenKeys
from kumafast.identity.tokens import DATAPLANE_TYPE, DataplaneClaims, UserClaims
from kumafast.resources.durations import nanoseconds
from kumafast.rest.body import read_object
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import std_error

_TITLE: Final = "Could not issue a token"
_VALID_FOR_MAX: Final = timedelta(days=365 * 100)

_TEXT: Final = {"type": ["string", "null"]}
_VALID_FOR: Final = {"type": "string", "minLength": 1, "examples": ["24h"]}
_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
DATAPLANE_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["mesh", "validFor"],
    "properties": {
        "name": _TEXT,
        "mesh": {"type": "string", "minLength": 1},
        "tags": {"type": ["object", "null"], "additionalProperties": _TEXTS},
        "type": {"enum": [DATAPLANE_TYPE, "", None]},
        "workload": _TEXT,
        "validFor": _VALID_FOR,
    },
}
"""The body of `POST /tokens/dataplane` as a JSON schema; which meshes and durations there are it does not say."""
USER_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "validFor"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "groups": {"type": ["array", "null"], "items": {"type": "string"}},
        "validFor": _VALID_FOR,
    },
}
"""The body of `POST /tokens/user`."""


def dataplane_token(keys: TokenKeys) -> Handler:
    """`POST /tokens/dataplane`."""

    async def issue(request: Request) -> Response:
        """A token for the dataplanes that the body names."""
        document = await read_object(request)
        violations = [*_check_texts(document, "name", "mesh", "type", "workload"), *_check_tags(document)]
        if document.get("type") not in (None, "", DATAPLANE_TYPE):
            violations.append(Violation("type", f'must be "{DATAPLANE_TYPE}"'))
        valid_for, in_time = _valid_for(document)
        if not document.get("mesh"):
            violations.append(Violation("mesh", "cannot be empty"))
        if violations or in_time:
            return _refused([*violations, *in_time])
        claims = DataplaneClaims(
            Name=document.get("name") or "",
            Mesh=document["mesh"],
            Tags={tag: tuple(values) for tag, values in (document.get("tags") or {}).items()},
            Type=document.get("type") or DATAPLANE_TYPE,
            Workload=document.get("workload") or "",
        )
        return PlainTextResponse(await keys.issue_dataplane(claims, valid_for=valid_for))

    return issue


def user_token(keys: TokenKeys) -> Handler:
    """`POST /tokens/user`."""

    async def issue(request: Request) -> Response:
        """A token for a user and the groups that the body names."""
        document = await read_object(request)
        violations = [*_check_texts(document, "name"), *_check_list(document.get("groups"), "groups")]
        if not document.get("name"):
            violations.append(Violation("name", "cannot be empty"))
        valid_for, in_time = _valid_for(document)
        if violations or in_time:
            return _refused([*violations, *in_time])
        claims = UserClaims(Name=document["name"], Groups=tuple(document.get("groups") or ()))
        return PlainTextResponse(await keys.issue_user(claims, valid_for=valid_for))

    return issue


def _refused(violations: list[Violation]) -> Response:
    error = InvalidResourceError(violations)
    return std_error(400, title=_TITLE, detail="The request is not valid", violations=error.violations)


def _valid_for(document: dict[str, Any]) -> tuple[timedelta, list[Violation]]:
    text = document.get("validFor")
    if not isinstance(text, str) or not text:
        return timedelta(), [Violation("validFor", "must be a duration such as 24h")]
    try:
        length = timedelta(microseconds=nanoseconds(text) / 1000)
    except ValueError as error:
        return timedelta(), [Violation("validFor", str(error))]
    if not timedelta() < length <= _VALID_FOR_MAX:
        return timedelta(), [Violation("validFor", "must be greater than zero and at most 100 years")]
    return length, []


def _check_texts(document: dict[str, Any], *names: str) -> Iterator[Violation]:
    for name in names:
        if not isinstance(document.get(name), str | None):
            yield Violation(name, "must be a string")


def _check_tags(document: dict[str, Any]) -> Iterator[Violation]:
    tags = document.get("tags")
    if tags is None:
        return
    if not isinstance(tags, dict):
        yield Violation("tags", "must be an object")
        return
    for tag, values in tags.items():
        yield from _check_list(values, f"tags[{tag!r}]", is_needed=True)


def _check_list(values: Any, path: str, *, is_needed: bool = False) -> Iterator[Violation]:
    if values is None and not is_needed:
        return
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        yield Violation(path, "must be a list of strings")
