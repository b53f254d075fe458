"""What instances of one store, workers among them, ask each other: each knows the proxies that are connected to itself.

In: a request to one of them. Out: the answers of all others, and who gave none. Never: the state of a proxy that is
kept twice; an answer that is asked for on and on: whoever is asked answers for itself alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from kumafast.rest.convergence import convergence
from kumafast.rest.endpoint import UNKNOWN_PATH, fixed
from kumafast.rest.proxy_config import show_config
from kumafast.rest.rejections import rejections
from kumafast.rest.services import ALONE, Answers, ApiServices
from kumafast.store.questions import Answerer, Questions

CLIENTS_PATH = "/_clients"
"""What stands with the clients of an instance, for CSDS; the query is the request's bytes in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """The other instances as one of them sees them."""

    questions: Questions

    async def ask(
        self, request: Request, *, query: str = "", wait_s: float = 0.0, first: bool = False, since: int = 0
    ) -> Answers:
        """What all others answer to the request, or to it with another query; the rest as `Questions.ask` has it."""
        target = f"{request.url.path}?{query or request.url.query}"
        replies = await self.questions.ask(target, wait_s=wait_s, first=first, since=since)
        return Answers(
            documents=[orjson.loads(body) for body in replies.bodies.values() if body],
            missing=replies.missing,
            is_complete=replies.is_complete,
        )


async def others_clients(questions: Questions, request: bytes) -> tuple[Sequence[bytes], Sequence[str]]:
    """What the others say to a request of CSDS, and who says nothing."""
    replies = await questions.ask(f"{CLIENTS_PATH}?{request.hex()}")
    return tuple(replies.bodies.values()), replies.missing


def create_answerer(services: ApiServices, clients: Callable[[bytes], Awaitable[bytes]]) -> Answerer:
    """What an instance answers the others: about its own proxies only. `clients` gives CSDS's answer to a request."""
    own = dataclasses.replace(services, siblings=ALONE)

    async def show_clients(request: Request) -> Response:
        return Response(await clients(bytes.fromhex(request.url.query)))

    app = Starlette(
        routes=[
            Route("/_convergence", fixed({"GET": convergence(own)})),
            Route("/meshes/{mesh}/_rejections", fixed({"GET": rejections(own)})),
            Route("/meshes/{mesh}/dataplanes/{name}/_config", fixed({"GET": show_config(own)})),
            Route(CLIENTS_PATH, fixed({"GET": show_clients})),
            Route("/{rest:path}", UNKNOWN_PATH),
        ]
    )

    async def answer(question: str) -> bytes:
        path, _, query = question.partition("?")
        return await _get(app, unquote(path), query)

    return answer


async def _get(app: ASGIApp, path: str, query: str) -> bytes:
    """The body of what an application answers, without a server in between; empty where it is no 200."""
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query.encode(),
        "headers": [(b"host", b"instance")], "client": None, "server": None,
    }  # fmt: skip
    statuses: list[int] = []
    parts: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return b"".join(parts) if statuses == [200] else b""
