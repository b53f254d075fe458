"""CSDS: each client's configuration and what it made of it, for whoever may see everybody's.

In: `ClientStatusRequest`s, what stands with the clients, their snapshots. Out: `ClientStatusResponse`s of both methods.
Never: who may ask (that is handed in; without it a server has these handlers only where all who reach it may); the
content of a secret.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from envoy.admin.v3 import config_dump_shared_pb2 as dump_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from kumafast.snapshot import framing
from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import SECRET, XdsResource
from kumafast.snapshot.snapshot import Snapshot
from kumafast.stream.admission import Authorize, PermissionDeniedError, UnauthenticatedError
from kumafast.stream.driver import Call, CallError, Handler, Status
from kumafast.stream.node_matcher import MatcherError, node_predicate

RESPONSE_BYTES_MAX = 32 << 20
"""A response that would be longer is refused: the caller can name fewer nodes, or leave the contents out."""

_SLICE_S = 0.005
_EMPTY = Snapshot()
_SERVICE = "/envoy.service.status.v3.ClientStatusDiscoveryService/"


class TypeStatus(Protocol):
    """One type of one client: versions (empty where there was none), seconds since 1970."""

    sent_version: str
    sent_at: float
    acknowledged_version: str
    acknowledged_at: float
    rejected_version: str
    rejected_at: float
    error: str

    @property
    def is_taken(self) -> bool:
        """Whether the newest response has been acknowledged."""
        ...

    @property
    def is_refused(self) -> bool:
        """Whether the newest response has been rejected."""
        ...


class ClientStatus(Protocol):
    """One client as it stands now."""

    @property
    def key(self) -> str: ...
    @property
    def node(self) -> Node: ...
    @property
    def streams(self) -> int: ...
    @property
    def types(self) -> Mapping[str, TypeStatus]: ...
    @property
    def synced(self) -> Snapshot | None:
        """The last snapshot of which the client has acknowledged all."""
        ...


Others = Callable[[bytes], Awaitable[tuple[Sequence[bytes], Sequence[str]]]]
"""What `Csds.own` of other instances says to a request, and the names of those who say nothing."""

_WHOLE, _REFUSED = b"\x00", b"\x01"


class Csds:
    """Answers for the clients of one server, and of the others that it can ask. `clients` is gone through for each
    request.
    """

    def __init__(
        self,
        clients: Iterable[ClientStatus],
        cache: SnapshotCache,
        *,
        response_bytes_max: int = RESPONSE_BYTES_MAX,
        authorize: Authorize | None = None,
        others: Others | None = None,
    ) -> None:
        """`authorize` judges who asks, for each request; without it everybody is answered."""
        self._authorize = authorize
        self._others = others
        self._clients = clients
        self._cache = cache
        self._response_bytes_max = response_bytes_max

    def handlers(self) -> dict[str, Handler]:
        """The service's methods by path, for `XdsServer(handlers=…)`."""
        return {f"{_SERVICE}StreamClientStatus": self._stream, f"{_SERVICE}FetchClientStatus": self._fetch}

    async def _stream(self, call: Call) -> None:
        async for data in call:
            self._judge(call)
            await call.write(await self._answer(data))

    async def _fetch(self, call: Call) -> None:
        async for data in call:
            self._judge(call)
            await call.write(await self._answer(data))
            return
        raise CallError(Status.INVALID_ARGUMENT, "a call of FetchClientStatus must have a request")

    def _judge(self, call: Call) -> None:
        try:
            if self._authorize is not None:
                self._authorize(call.headers.get("authorization", ""))
        except UnauthenticatedError as error:
            raise CallError(Status.UNAUTHENTICATED, str(error)) from error
        except PermissionDeniedError as error:
            raise CallError(Status.PERMISSION_DENIED, str(error)) from error

    async def own(self, data: bytes) -> bytes:
        """What another instance is told that was asked: a byte, then our part of the answer or why there is none."""
        try:
            return _WHOLE + await self._own(data)
        except CallError as error:
            return _REFUSED + str(error).encode()

    async def _answer(self, data: bytes) -> bytes:
        own = await self._own(data)
        if self._others is None:
            return own
        parts, missing = await self._others(data)
        if missing:
            raise CallError(Status.UNAVAILABLE, f"of {', '.join(missing)}, which live, there is no answer")
        for part in parts:
            if part[:1] != _WHOLE:
                raise CallError(Status.RESOURCE_EXHAUSTED, part[1:].decode())
        if len(own) + sum(map(len, parts)) > self._response_bytes_max:
            raise _too_long(self._response_bytes_max)
        # A message that follows another of its kind adds to it.
        return b"".join((own, *(part[1:] for part in parts)))

    async def _own(self, data: bytes) -> bytes:
        try:
            request = csds_pb2.ClientStatusRequest.FromString(data)
            is_meant = node_predicate(request.node_matchers)
        except (DecodeError, MatcherError) as error:
            raise CallError(Status.INVALID_ARGUMENT, f"not a request that can be served: {error}") from error
        answer = _Answer(self._response_bytes_max, with_contents=not request.exclude_resource_contents)
        for client in self._clients:
            if client.streams and is_meant(client.node):
                await answer.add(client, self._cache.get(client.key))
            await answer.pause()
        return b"".join(answer.parts)


class _Answer:
    """One response as it grows. Raises `CallError` where it gets too long; lets others have their turn meanwhile."""

    def __init__(self, bytes_max: int, *, with_contents: bool) -> None:
        self.parts: list[bytes] = []
        self._bytes_max = bytes_max
        self._with_contents = with_contents
        self._size = 0
        self._began = time.monotonic()

    async def add(self, client: ClientStatus, snapshot: Snapshot | None) -> None:
        config = csds_pb2.ClientConfig(node=_node(client.node))
        contents = 0
        snapshot = snapshot or _EMPTY
        for type_url in snapshot.type_urls:
            for resource in snapshot.resources(type_url).values():
                status = _resource_status(resource, snapshot, client, with_contents=self._with_contents)
                config.generic_xds_configs.append(status)
                contents += len(resource.body) if self._with_contents else 0
                self._check(self._size + contents)
                await self.pause()
        data = config.SerializeToString()
        # ClientStatusResponse { repeated ClientConfig config = 1 }, joined by hand so that it is serialised once.
        self.parts += (framing.opening(1, len(data)), data)
        self._size += len(data)
        self._check(self._size)

    def _check(self, size: int) -> None:
        if size > self._bytes_max:
            raise _too_long(self._bytes_max)

    async def pause(self) -> None:
        if time.monotonic() - self._began > _SLICE_S:
            await asyncio.sleep(0)
            self._began = time.monotonic()


def _too_long(bytes_max: int) -> CallError:
    return CallError(
        Status.RESOURCE_EXHAUSTED,
        f"the answer would be longer than {bytes_max} bytes; "
        "name fewer nodes in node_matchers, or set exclude_resource_contents",
    )


def _node(node: Node) -> base_pb2.Node:
    message = base_pb2.Node(
        id=node.id,
        cluster=node.cluster,
        user_agent_name=node.user_agent_name,
        user_agent_version=node.user_agent_version,
    )
    message.metadata.update(node.metadata)
    return message


def _resource_status(
    resource: XdsResource, snapshot: Snapshot, client: ClientStatus, *, with_contents: bool
) -> csds_pb2.ClientConfig.GenericXdsConfig:
    """What the client made of one resource, as far as versions of its type and its last complete snapshot tell."""
    of_type = client.types.get(resource.type_url)
    before = None if client.synced is None else client.synced.resources(resource.type_url).get(resource.name)
    message = csds_pb2.ClientConfig.GenericXdsConfig(type_url=resource.type_url, name=resource.name)
    version = snapshot.version(resource.type_url)
    shown: XdsResource | None = resource
    if of_type is None:
        # On no stream was anything of the type sent: the client has never asked, or held all of it when it came.
        message.config_status = csds_pb2.UNKNOWN if before == resource else csds_pb2.NOT_SENT
    elif of_type.acknowledged_version and (
        # A snapshot that was synced counts for a type only if the client has asked for it.
        before == resource or (of_type.is_taken and of_type.acknowledged_version == version)
    ):
        message.config_status, message.client_status = csds_pb2.SYNCED, dump_pb2.ACKED
        # Other names for the versions of equal content are not sent.
        message.version_info = of_type.acknowledged_version
        message.last_updated.FromMilliseconds(round(1000 * of_type.acknowledged_at))
    else:
        message.version_info = of_type.acknowledged_version
        if of_type.sent_version != version:
            message.config_status = csds_pb2.NOT_SENT
        elif not of_type.is_refused:
            message.config_status, message.client_status = csds_pb2.STALE, dump_pb2.REQUESTED
            message.last_updated.FromMilliseconds(round(1000 * of_type.sent_at))
        else:
            message.config_status, message.client_status = csds_pb2.ERROR, dump_pb2.NACKED
            _describe_refusal(message.error_state, of_type)
            if with_contents:
                _show(message.error_state.failed_configuration, resource)
            # What the client runs is what it had before, and that may be nothing.
            shown = before
    if with_contents and shown is not None:
        _show(message.xds_config, shown)
    return message


def _describe_refusal(state: dump_pb2.UpdateFailureState, of_type: TypeStatus) -> None:
    state.details = of_type.error
    state.version_info = of_type.rejected_version
    state.last_update_attempt.FromMilliseconds(round(1000 * of_type.rejected_at))


def _show(message: any_pb2.Any, resource: XdsResource) -> None:
    if resource.type_url != SECRET:
        message.type_url, message.value = resource.type_url, resource.body
