"""One path of the API: its methods, and what becomes of requests that fail.

In: a request. Out: what the method's handler answers, or the error's form. Never: an exception that reaches the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kumafast.rest.errors import MethodNotAllowedError, UnknownPathError, translate, unexpected

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Methods: TypeAlias = Mapping[str, Handler]

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain"


class Endpoint:
    """An ASGI application for one path. Which methods it has may depend on the path's parameters.

    For the API's description are: `methods`, those that it has always; `query`, the parameters that GET understands;
    `body`, the schema of what POST takes; `media_type`, that of its answers.
    """

    def __init__(
        self,
        find_methods: Callable[[Request], Methods],
        *,
        methods: Methods | None = None,
        query: Sequence[str] = (),
        body: Mapping[str, Any] | None = None,
        media_type: str = JSON_TYPE,
    ) -> None:
        self._find_methods = find_methods
        self.methods: Methods = {} if methods is None else methods
        self.query = tuple(query)
        self.body = body
        self.media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            methods = self._find_methods(request)
            # The server leaves out the body of an answer to HEAD.
            handler = methods.get("GET" if request.method == "HEAD" else request.method)
            if handler is not None:
                return await handler(request)
            allowed = _allowed(methods)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": ", ".join(allowed)})
            raise MethodNotAllowedError(f"{request.method} is not allowed at {request.url.path}", allowed=allowed)
        except Exception as error:
            return translate(error, request.method) or unexpected(f"{request.method} {request.url.path}", error)


def fixed(
    methods: Methods,
    *,
    query: Sequence[str] = (),
    body: Mapping[str, Any] | None = None,
    media_type: str = JSON_TYPE,
) -> Endpoint:
    """An endpoint whose methods are always the same."""
    return Endpoint(lambda _: methods, methods=methods, query=query, body=body, media_type=media_type)


def _find_nothing(_: Request) -> Methods:
    raise UnknownPathError


UNKNOWN_PATH = Endpoint(_find_nothing)
"""For paths at which nothing is served, whatever the method."""


def _allowed(methods: Methods) -> list[str]:
    return [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
