"""What the process beside an Envoy does once it is needed: answer for metrics, and send them to collectors.

In: the socket where Envoy's clients come, where Envoy is reached. Out: metrics of the sidecar as a MeshMetric selects
them, and those of its workloads as they give them. Never: a metric that is kept; each answer is read when it is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kumafast.cli import metrics_export
from kumafast.cli.metrics_text import Selection, published
from kumafast.resources.durations import nanoseconds

_PATH: Final = "/meshmetric"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_TIMEOUT_S: Final = 8.0
_BODY_MAX: Final = 32 * 1024 * 1024
_LOOK_EVERY_S: Final = 5.0
_LOOPBACK: Final = "127.0.0.1"


def serve(listener: socket.socket, *, config: str, admin: Mapping[str, Any]) -> None:
    """Answer on a socket that listens until our standard input is closed."""
    asyncio.run(_serve(listener, Sources(config, admin)))


class Sources:
    """Where metrics come from, and what is to be done with them."""

    def __init__(self, config: str, admin: Mapping[str, Any]) -> None:
        pipe, by_port = admin.get("pipe"), admin.get("socketAddress") or {}
        self._config = _client(config)
        self._envoy = _client(None if pipe is None else pipe["path"])
        self._envoy_url = "http://envoy"
        if pipe is None:
            self._envoy_url = f"http://{by_port.get('address', _LOOPBACK)}:{by_port.get('portValue')}"
        self._others = _client(None)
        self._version, self._told = "", dict[str, Any]()

    async def told(self) -> Mapping[str, Any]:
        """What a MeshMetric says, as Envoy has it now. Raises `httpx.HTTPError` where there is none."""
        response = await self._config.get(f"http://envoy{_PATH}", headers={"If-None-Match": self._version})
        if response.status_code != httpx.codes.NOT_MODIFIED:
            response.raise_for_status()
            self._told = json.loads(response.content)["observability"]["metrics"]
            self._version = response.headers.get("etag", "")
        return self._told

    async def metrics(self, told: Mapping[str, Any]) -> list[str]:
        """Those of the sidecar, then those of each workload that answers. Raises `httpx.HTTPError`."""
        applications: Sequence[Mapping[str, Any]] = told.get("applications") or ()
        own, *others = await asyncio.gather(self._own(told), *map(self._of_application, applications))
        return [own, *others]

    async def _own(self, told: Mapping[str, Any]) -> str:
        selection = Selection.of(told.get("sidecar"))
        query = "" if selection.includes_unused else "?usedonly"
        text = await _text(self._envoy, f"{self._envoy_url}/stats/prometheus{query}")
        return published(text, selection)

    async def _of_application(self, application: Mapping[str, Any]) -> str:
        host = application.get("address") or _LOOPBACK
        authority = f"[{host}]" if ":" in host else host
        url = f"http://{authority}:{application['port']}/{application['path'].lstrip('/')}"
        try:
            return await _text(self._others, url)
        except httpx.HTTPError as error:
            # The sidecar's metrics are worth more than none at all.
            _tell(f"no metrics from {url}: {error!r}")
            return ""

    async def send(self, backend: Mapping[str, Any], labels: Mapping[str, str], texts: Sequence[str]) -> None:
        """Send metrics to a collector through the socket that leads there. Raises `httpx.HTTPError`."""
        body = metrics_export.request(texts, labels, at_ns=time.time_ns())
        async with _client(backend["openTelemetry"]["endpoint"]) as client:
            response = await client.post(
                metrics_export.URL, content=body, headers={"Content-Type": "application/grpc", "TE": "trailers"}
            )
        response.raise_for_status()
        if response.headers.get("grpc-status", "0") != "0":
            _tell(f"{backend['name']} refused metrics: {response.headers.get('grpc-message', '')}")


async def _serve(listener: socket.socket, sources: Sources) -> None:
    async def answer(request: Request) -> Response:
        try:
            texts = await sources.metrics(await sources.told())
        except httpx.HTTPError as error:
            return PlainTextResponse(f"no metrics: {error!r}\n", status_code=503)
        return Response("\n".join(texts), media_type=_TEXT)

    app = Starlette(routes=[Route(_PATH, answer)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    sending = asyncio.ensure_future(_send_forever(sources))
    await asyncio.wait({serving, asyncio.ensure_future(_envoy_ended())}, return_when=asyncio.FIRST_COMPLETED)
    sending.cancel()
    server.should_exit = server.force_exit = True
    await serving


async def _envoy_ended() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


async def _send_forever(sources: Sources) -> None:
    """Send to each collector as often as it is told; a collector that is away misses what it misses."""
    due: dict[str, float] = {}
    while True:
        pause = _LOOK_EVERY_S
        try:
            told = await sources.told()
            backends = {each["name"]: each for each in told.get("backends") or () if each.get("openTelemetry")}
            now = time.monotonic()
            due = {name: due.get(name, now) for name in backends}
            if ready := [name for name, at in due.items() if at <= now]:
                texts = await sources.metrics(told)
                for name in ready:
                    due[name] = now + max(1.0, _seconds(backends[name]["openTelemetry"]["refreshInterval"]))
                    await sources.send(backends[name], told.get("extraLabels") or {}, texts)
            if due:
                pause = min(pause, max(0.1, min(due.values()) - time.monotonic()))
        except httpx.HTTPError as error:
            # While no MeshMetric is for this proxy there is no such socket.
            if not isinstance(error, httpx.ConnectError):
                _tell(f"metrics could not be sent: {error!r}")
        await asyncio.sleep(pause)


def _seconds(duration: str) -> float:
    return nanoseconds(duration) / 1e9


async def _text(client: httpx.AsyncClient, url: str) -> str:
    """What stands at a URL, up to a limit."""
    body = bytearray()
    async with client.stream("GET", url, headers={"Accept": _TEXT}) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _BODY_MAX:
                raise httpx.TransportError(f"more than {_BODY_MAX} bytes")
    return body.decode(errors="replace")


def _client(path: str | None) -> httpx.AsyncClient:
    # Its own connection each time: Envoy drains listeners that change, and a kept one would meet the old.
    limits = httpx.Limits(max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(uds=path, limits=limits)
    return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT_S, trust_env=False)


def _tell(line: str) -> None:
    os.write(2, f"{line}\n".encode(errors="replace"))
