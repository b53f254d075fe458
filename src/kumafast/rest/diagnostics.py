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


def create_diagnostics(
    is_ready: Callable[[], bool],
    read_metrics: Callable[[], Awaitable[bytes]],
    store_failure: Callable[[], str] = lambda: "",
) -> Starlette:
    """`/ready` is 200 once everything serves, 503 before that; `/healthy` is 200 always; `/metrics` is Prometheus'.

    While nothing can be written `/ready` is 200 and says why: proxies and readers are served, and should not be sent
    elsewhere.
    """

    async def ready(_: Request) -> Response:
        if not is_ready():
            return PlainTextResponse("not ready\n", 503)
        failure = store_failure()
        return PlainTextResponse(f"ready, but nothing can be written: {failure}\n" if failure else "ready\n")

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
