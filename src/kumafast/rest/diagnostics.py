"""Is the process alive, may it be sent traffic, what do its numbers say.

In: questions whether the control plane is ready, and for its metrics. Out: the server on the diagnostics port.
Never: anything of meshes; this port answers machines that watch the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kumafast.metrics import CONTENT_TYPE
from kumafast.rest.endpoint import UNKNOWN_PATH, fixed


def create_diagnostics(is_ready: Callable[[], bool], read_metrics: Callable[[], Awaitable[bytes]]) -> Starlette:
    """`/ready` is 200 once everything serves, 503 before that; `/healthy` is 200 always; `/metrics` is Prometheus'."""

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", 503)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("healthy\n")

    async def show_metrics(_: Request) -> Response:
        return Response(await read_metrics(), headers={"Content-Type": CONTENT_TYPE})

    return Starlette(
        routes=[
            Route("/ready", fixed({"GET": ready})),
            Route("/healthy", fixed({"GET": healthy})),
            Route("/metrics", fixed({"GET": show_metrics})),
            Route("/{rest:path}", UNKNOWN_PATH),
        ]
    )
