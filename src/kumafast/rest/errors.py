"""Errors in the form of Kuma's API: one JSON document for all of them.

In: exceptions. Out: responses. Never: a traceback in a body; what nobody foresaw is
logged with one and answered with 500.

`details` and `causes` are the older names of `detail` and `invalid_parameters`; clients of both ages are served, so
they always come together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from starlette.responses import PlainTextResponse, Response

from kumafast.errors import (
    ConflictError,
    InvalidResourceError,
    MalformedResourceError,
    MeshInUseError,
    MeshNotFoundError,
    NotFoundError,
    StoreUnavailableError,
    Violation,
)

_LOG = logging.getLogger(__name__)

_RETRIEVE: Final = "Could not retrieve a resource"
_PROCESS: Final = "Could not process a resource"
_DELETE: Final = "Could not delete a resource"
_TITLES: Final = {"GET": _RETRIEVE, "HEAD": _RETRIEVE, "DELETE": _DELETE}


class BodyTooLargeError(Exception):
    """A request's body is longer than the server reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body must not be longer than {limit} bytes")


class AbsentError(Exception):
    """What the request is about is not there; `title` says what was looked for."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.title = title


class BadRequestError(Exception):
    """The request makes no sense, or not in this mesh, and why."""


class InvalidQueryError(Exception):
    """A parameter of the query that cannot be used."""

    def __init__(self, detail: str, violation: Violation) -> None:
        super().__init__(detail)
        self.detail = detail
        self.violation = violation


class MethodNotAllowedError(Exception):
    """The path is known, the method is not; `allowed` are those that are."""

    def __init__(self, detail: str, *, allowed: Iterable[str]) -> None:
        super().__init__(detail)
        self.detail = detail
        self.allowed = tuple(allowed)


class UnreachableError(Exception):
    """An Envoy could not reach the control plane, or not verify it, as the request would have it."""


class NoAnswerError(Exception):
    """Other instances, of which the request may be, give no answer."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__(f"{what}, which {'does' if count == 1 else 'do'} not answer")


class UnknownPathError(Exception):
    """Nothing is served at the path."""


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response that holds a value as JSON."""
    return encoded_response(orjson.dumps(document), status, headers)


def encoded_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response that holds JSON which is encoded already."""
    return Response(body, status, headers, media_type="application/json")


def std_error(
    status: int,
    *,
    title: str,
    detail: str,
    violations: Iterable[Violation] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error in Kuma's form, with the deprecated mirror of each field."""
    document: dict[str, Any] = {"type": "/std-errors", "status": status, "title": title, "detail": detail}
    violations = tuple(violations)
    if violations:
        document["invalid_parameters"] = [{"field": v.field, "reason": v.message} for v in violations]
    document["details"] = detail
    if violations:
        document["causes"] = [{"field": v.field, "message": v.message} for v in violations]
    return json_response(document, status, headers)


def translate(error: Exception, method: str) -> Response | None:
    """The answer to a request that failed with `error`; None where nobody foresaw such an error."""
    title = _TITLES.get(method, _PROCESS)
    match error:
        case UnknownPathError():
            # Kuma answers in plain text here, and clients tell a missing page from a missing resource by it.
            return PlainTextResponse("404: Page Not Found", 404)
        case MeshNotFoundError():
            return std_error(
                404, title="Failed to retrieve Mesh", detail="Not found", violations=[Violation("mesh", str(error))]
            )
        case NotFoundError():
            return std_error(404, title=title, detail="Not found")
        case AbsentError():
            return std_error(404, title=error.title, detail="Not found")
        case BadRequestError():
            return std_error(400, title="Bad Request", detail=f"bad request: {error}")
        case InvalidResourceError():
            return std_error(400, title=title, detail="Resource is not valid", violations=error.violations)
        case MalformedResourceError():
            return std_error(400, title="Bad Request", detail=error.detail, violations=error.violations)
        case InvalidQueryError():
            title = "Could not retrieve resources" if title == _RETRIEVE else title
            return std_error(400, title=title, detail=error.detail, violations=[error.violation])
        case MeshInUseError():
            return std_error(
                400, title=title, detail="Resource is not valid", violations=[Violation("mesh", str(error))]
            )
        case MethodNotAllowedError():
            allow = {"Allow": ", ".join(error.allowed)}
            return std_error(405, title="Method not Allowed", detail=error.detail, headers=allow)
        case ConflictError():
            return std_error(409, title="Conflict", detail=str(error) or "Conflict")
        case BodyTooLargeError():
            return std_error(413, title=title, detail=str(error))
        case NoAnswerError():
            return std_error(503, title=title, detail=str(error))
        case StoreUnavailableError():
            return std_error(503, title=title, detail=str(error) or "The store is unavailable")
    return None


def unexpected(request_line: str, error: Exception) -> Response:
    """The answer to a failure of ours: logged with its traceback, which the client does not see."""
    _LOG.error("%s failed", request_line, exc_info=error)
    return std_error(500, title="Internal Server Error", detail="Internal Server Error")
