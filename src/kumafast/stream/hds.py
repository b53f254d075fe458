"""HDS: Envoys are told what to probe and report what they found, each on a stream of its own.

In: calls of `StreamHealthCheck`, a `HealthWatcher`. Out: specifiers to Envoys, reports to the watcher.
Never: what is to be probed, or what follows from a report. A bad peer ends its own stream only.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from envoy.config.core.v3 import health_check_pb2
from envoy.service.health.v3 import hds_pb2
from google.protobuf.message import DecodeError

from kumafast.snapshot.node import Node
from kumafast.stream import wire
from kumafast.stream.admission import Authenticate, UnauthenticatedError
from kumafast.stream.driver import Call, CallError, Handler, Status
from kumafast.stream.messages import ProtocolError

REPORT_BYTES_MAX = 256 << 10
"""A report is some 200 bytes for each port that is probed."""

_METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
# As in Kuma: what has not been probed yet is no reason to keep clients away.
_WELL = (health_check_pb2.HEALTHY, health_check_pb2.UNKNOWN)


class HealthWatcher(Protocol):
    """Knows what each Envoy is to probe, and hears what it found. Calls come from the event loop and must be quick."""

    def opened(self, stream_id: str, node: Node, send: Callable[[bytes], None], /) -> None:
        """A stream has named its node. `send` tells it what to probe, now or later; of several the newest counts."""

    def reported(self, stream_id: str, health: Mapping[str, bool], /) -> bool:
        """An Envoy has found something else than before: by the name of each cluster, whether it is well.

        False where that does not count yet, and is to be told again when the Envoy says the same again.
        """
        ...

    def closed(self, stream_id: str, /) -> None:
        """The stream has ended; called once for each opened stream."""


class Hds:
    """Serves Envoys on behalf of a watcher."""

    def __init__(self, watcher: HealthWatcher, *, authenticate: Authenticate | None = None) -> None:
        """`authenticate` judges each stream by its first message, before the watcher knows of it."""
        self._watcher = watcher
        self._authenticate = authenticate

    def handlers(self) -> dict[str, Handler]:
        """The service's method by path, for `XdsServer(handlers=…)`."""
        return {_METHOD: self._stream}

    async def _stream(self, call: Call) -> None:
        first = await anext(call, None)
        if first is None:
            return
        visit = _Visit(call)
        node = _node(first)
        leave = self._admit(visit, node)
        try:
            self._watcher.opened(visit.id, node, visit.send)
            try:
                await self._follow(visit)
            finally:
                self._watcher.closed(visit.id)
        finally:
            visit.close()
            leave()

    def _admit(self, visit: _Visit, node: Node) -> Callable[[], None]:
        if self._authenticate is None:
            return lambda: None
        try:
            return self._authenticate(visit.call.headers.get("authorization", ""), node, visit.refuse)
        except UnauthenticatedError as error:
            raise CallError(Status.UNAUTHENTICATED, str(error)) from error

    async def _follow(self, visit: _Visit) -> None:
        last = b""
        async for message in visit.call:
            # Whoever sends many at once has one read: each says all that there is to say.
            newest = visit.call.newest(message)
            if visit.refusal is not None:
                break
            # An Envoy says the same again and again; that costs a comparison.
            if newest != last:
                health = _report(newest)
                last = newest if health is None or self._watcher.reported(visit.id, health) else b""
        if visit.refusal is not None:
            raise CallError(Status.UNAUTHENTICATED, visit.refusal)


class _Visit:
    """One stream: whom it is called for, and what its client is to be told, of which one message at most waits."""

    def __init__(self, call: Call) -> None:
        self.id = str(uuid.uuid4())
        self.call = call
        self.refusal: str | None = None
        self._next: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    def refuse(self, why: str) -> None:
        """End a stream that may not stay."""
        self.refusal = why
        self.call.end_received()

    def send(self, message: bytes) -> None:
        """Tell the client, in place of what it has not been told yet."""
        self._next = message
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._next is not None:
                message, self._next = self._next, None
                await self.call.write(message)
        finally:
            self._task = None

    def close(self) -> None:
        """Tell it nothing more."""
        if self._task is not None:
            self._task.cancel()


def _node(data: bytes) -> Node:
    """Whose stream it is, which its first message must say."""
    message = _decode(data)
    if not message.HasField("health_check_request") or not message.health_check_request.HasField("node"):
        raise CallError(Status.INVALID_ARGUMENT, "the first message must be a health check request with a node")
    try:
        return wire.decode_node(message.health_check_request.node.SerializeToString())
    except ProtocolError as error:
        raise CallError(Status.INVALID_ARGUMENT, str(error)) from error


def _report(data: bytes) -> dict[str, bool] | None:
    """Which clusters are well; None where the message says nothing of that. One is, if any of its endpoints is."""
    message = _decode(data)
    if not message.HasField("endpoint_health_response"):
        return None
    return {
        cluster.cluster_name: any(
            endpoint.health_status in _WELL
            for locality in cluster.locality_endpoints_health
            for endpoint in locality.endpoints_health
        )
        for cluster in message.endpoint_health_response.cluster_endpoints_health
        if any(locality.endpoints_health for locality in cluster.locality_endpoints_health)
    }


def _decode(data: bytes) -> hds_pb2.HealthCheckRequestOrEndpointHealthResponse:
    if len(data) > REPORT_BYTES_MAX:
        raise CallError(Status.RESOURCE_EXHAUSTED, f"a message of more than {REPORT_BYTES_MAX} bytes")
    try:
        return hds_pb2.HealthCheckRequestOrEndpointHealthResponse.FromString(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallError(Status.INVALID_ARGUMENT, f"not a message of health discovery: {error}") from error
