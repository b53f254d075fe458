"""What workers of one command ask of each other: each knows the proxies that are connected to itself only.

In: a request to one of them. Out: the answers of all others, from the sockets that they have in a directory which only
their user can enter. Never: the state of a proxy that is kept twice; an answer that is asked for on and on.

A worker that has died leaves a socket at which nobody answers: its proxies are about to come to another one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from kumafast.rest.convergence import convergence
from kumafast.rest.endpoint import UNKNOWN_PATH, fixed
from kumafast.rest.proxy_config import show_config
from kumafast.rest.rejections import rejections
from kumafast.rest.services import ALONE, Answers, ApiServices

SOCKETS = "*.sock"
_CONNECT_S = 2.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Siblings:
    """The workers of one command as one of them sees them. `own` is where it answers the others."""

    own: Path

    async def ask(self, request: Request, *, query: str = "", wait_s: float = 0.0) -> Answers:
        """What all others answer to the request, or to it with another query, each after `wait_s` at most."""
        sockets = sorted(path for path in self.own.parent.glob(SOCKETS) if path != self.own)
        target = f"{request.url.path}?{query or request.url.query}"
        answers = await asyncio.gather(*(_get(path, target, wait_s) for path in sockets))
        return Answers(
            documents=[answer for answer in answers if isinstance(answer, dict)],
            is_complete=not any(answer is _LOST for answer in answers),
        )


_LOST = object()


async def _get(path: Path, target: str, wait_s: float) -> Any:
    """A document; None where nobody is there, or has nothing to say; `_LOST` where somebody went away meanwhile."""
    # Who has no siblings asks nobody, and its import is a twentieth of a start.
    import httpx

    timeout = httpx.Timeout(wait_s + _ANSWER_S, connect=_CONNECT_S)
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), timeout=timeout) as client:
            response = await client.get(f"http://worker{target}")
            return response.json() if response.status_code == 200 else None
    except httpx.ConnectError:
        return None
    except httpx.TransportError:
        return _LOST


def create_private(services: ApiServices, further: Sequence[Route]) -> Starlette:
    """What a worker answers the others, of its own proxies only; and `further` routes."""
    own = dataclasses.replace(services, siblings=ALONE)
    return Starlette(
        routes=[
            Route("/_convergence", fixed({"GET": convergence(own)})),
            Route("/meshes/{mesh}/_rejections", fixed({"GET": rejections(own)})),
            Route("/meshes/{mesh}/dataplanes/{name}/_config", fixed({"GET": show_config(own)})),
            *further,
            Route("/{rest:path}", UNKNOWN_PATH),
        ]
    )
