"""The feed of `kumafast raw-xds`: somebody else's resources over HTTP, each key's snapshot as a whole.

In: JSON documents with resources as bytes. Out: snapshots in a `SnapshotCache`, back as documents; what stands with the
clients. Never: a look into a resource; a snapshot of which only a part was good.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kumafast.errors import InvalidResourceError, NotFoundError, Violation
from kumafast.insights import Clients, ClientStatus, TypeStatus
from kumafast.rest.body import read_object
from kumafast.rest.endpoint import UNKNOWN_PATH, fixed
from kumafast.rest.errors import json_response
from kumafast.snapshot import Layer, Snapshot, SnapshotCache, XdsResource

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest document of a snapshot, base64 included."""

VIOLATIONS_MAX: Final = 20
"""How many of a document's mistakes, or of its unknown fields, an answer names."""

_STATUS_SLICE: Final = 64
_WAITING: Final = orjson.dumps(
    {"connected": False, "connected_since": None, "disconnected_at": None, "streams": 0, "types": {}}
)
_DOCUMENT_FIELDS: Final = frozenset({"version", "versions", "resources"})
_RESOURCE_FIELDS: Final = frozenset({"type_url", "name", "value"})


def create_feed(cache: SnapshotCache, clients: Clients, *, body_bytes_max: int = BODY_BYTES_MAX) -> Starlette:
    """The feed as an ASGI application: `/ready`, `/v1/snapshots/{key}`, `/v1/status`."""
    feed = _Feed(cache, clients, body_bytes_max)
    snapshot = fixed({"GET": feed.show, "PUT": feed.put, "DELETE": feed.delete})
    return Starlette(
        routes=[
            Route("/ready", fixed({"GET": feed.ready})),
            # A node's id may have slashes.
            Route("/v1/snapshots/{key:path}", snapshot),
            Route("/v1/status", fixed({"GET": feed.status})),
            Route("/{rest:path}", UNKNOWN_PATH),
        ]
    )


class _Feed:
    def __init__(self, cache: SnapshotCache, clients: Clients, body_bytes_max: int) -> None:
        self._cache = cache
        self._clients = clients
        self._body_bytes_max = body_bytes_max

    async def ready(self, _: Request) -> Response:
        return PlainTextResponse("ready\n")

    async def put(self, request: Request) -> Response:
        """Replace a key's snapshot. When this returns, whoever asks gets the new one."""
        key = _key(request)
        document = await read_object(request, bytes_max=self._body_bytes_max)
        self._cache.set(key, snapshot_of(document))
        unknown = unknown_fields(document)
        return json_response(
            {"warnings": [f"{name} is not known and was ignored" for name in unknown]} if unknown else {}
        )

    async def show(self, request: Request) -> Response:
        snapshot = self._cache.get(_key(request))
        if snapshot is None:
            raise NotFoundError
        return json_response(document_of(snapshot))

    async def delete(self, request: Request) -> Response:
        """Forget a key's snapshot. Its clients keep what they hold; those that come get no answer."""
        key = _key(request)
        if self._cache.get(key) is None:
            raise NotFoundError
        self._cache.clear(key)
        return json_response({})

    async def status(self, _: Request) -> Response:
        return StreamingResponse(self._status(), media_type="application/json")

    async def _status(self) -> AsyncIterator[bytes]:
        """The nodes a slice at a time: ten thousand are not encoded in one turn of the loop."""
        yield b'{"nodes":{'
        parts: list[bytes] = []
        separator = b""
        seen = set()
        for client in self._clients:
            seen.add(client.key)
            parts += (separator, orjson.dumps(client.key), b":", orjson.dumps(self._node(client)))
            separator = b","
            if len(seen) % _STATUS_SLICE == 0:
                yield b"".join(parts)
                parts.clear()
                await asyncio.sleep(0)
        # Those that wait for a client: a key that is spelt otherwise than the node's id is found here.
        waiting: dict[str, Any] = {
            "connected": False,
            "connected_since": None,
            "disconnected_at": None,
            "streams": 0,
            "types": {},
        }
        for key in self._cache:
            if key not in seen:
                parts += (separator, orjson.dumps(key), b":", orjson.dumps(waiting))
                separator = b","
        yield b"".join((*parts, b"}}"))

    def _node(self, client: ClientStatus) -> dict[str, Any]:
        snapshot = self._cache.get(client.key)
        return {
            "connected": client.streams > 0,
            "connected_since": _time(client.connected_at),
            "disconnected_at": _time(client.disconnected_at),
            "streams": client.streams,
            "types": {
                type_url: _type(status, 0 if snapshot is None else len(snapshot.resources(type_url)))
                for type_url, status in client.types.items()
            },
        }


def _type(status: TypeStatus, resources: int) -> dict[str, Any]:
    return {
        "sent": status.sent_version or None,
        "acked": status.acknowledged_version or None,
        "nacked": status.rejected_version or None,
        "error": status.error if status.rejected else None,
        "error_time": _time(status.rejected_at or None),
        "answer": status.answer.value,
        "responses": status.sent,
        "acks": status.acknowledged,
        "nacks": status.rejected,
        "bytes": status.bytes,
        "resources": resources,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _key(request: Request) -> str:
    key: str = request.path_params["key"]
    if not key:
        raise InvalidResourceError([Violation("key", "must not be empty; it is a node's id, or *")])
    return key


# Documents.


def snapshot_of(document: Mapping[str, Any]) -> Snapshot:
    """The snapshot that a document describes; unknown fields are left out. Raises `InvalidResourceError`."""
    violations: list[Violation] = []
    version = _text(document.get("version"), "version", violations) if "version" in document else None
    versions = document.get("versions", {})
    if isinstance(versions, dict):
        for type_url, named in versions.items():
            _text(named, f'versions["{type_url}"]', violations)
    else:
        violations.append(Violation("versions", "must be an object of texts by type URL"))
    listed = document.get("resources")
    resources: list[XdsResource] = []
    if isinstance(listed, list):
        resources = _resources(listed, violations)
    else:
        violations.append(Violation("resources", "must be a list; an empty one empties every type"))
    if violations:
        more = len(violations) - VIOLATIONS_MAX
        rest = [Violation("resources", f"and {more} more mistakes")] if more > 0 else []
        raise InvalidResourceError([*violations[:VIOLATIONS_MAX], *rest])
    return Snapshot([Layer(resources)], versions=versions, default_version=version)


def unknown_fields(document: Mapping[str, Any]) -> list[str]:
    """The fields of a document that was read which mean nothing: its own, and those of its resources, each once."""
    in_resources = set().union(*(item.keys() for item in document["resources"])) - _RESOURCE_FIELDS
    return sorted([*(document.keys() - _DOCUMENT_FIELDS), *(f"resources[].{name}" for name in in_resources)])


def _resources(listed: Iterable[object], violations: list[Violation]) -> list[XdsResource]:
    resources: list[XdsResource] = []
    places: dict[tuple[str, str], int] = {}
    for place, item in enumerate(listed):
        field = f"resources[{place}]"
        if not isinstance(item, dict):
            violations.append(Violation(field, "must be an object with type_url, name and value"))
            continue
        type_url, name = (_text(item.get(part), f"{field}.{part}", violations) for part in ("type_url", "name"))
        body = _bytes(item.get("value"), f"{field}.value", violations)
        if type_url is None or name is None or body is None:
            continue
        first = places.setdefault((type_url, name), place)
        if first != place:
            violations.append(Violation(field, f"has the type and the name of resources[{first}]"))
            continue
        resources.append(XdsResource(type_url, name, body))
    return resources


def _text(value: object, field: str, violations: list[Violation]) -> str | None:
    if isinstance(value, str) and value and "\0" not in value:
        return value
    is_text = isinstance(value, str) and value
    violations.append(Violation(field, "must not contain NUL" if is_text else "must be a text that is not empty"))
    return None


def _bytes(value: object, field: str, violations: list[Violation]) -> bytes | None:
    reason = "must be a text, the message's bytes in base64"
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            reason = f"is not base64: {error}"
    violations.append(Violation(field, reason))
    return None


def document_of(snapshot: Snapshot) -> dict[str, Any]:
    """The document that describes a snapshot: `snapshot_of` makes an equal one from it."""
    version = {} if snapshot.default_version is None else {"version": snapshot.default_version}
    return {
        **version,
        "versions": dict(snapshot.named_versions),
        "resources": [
            {"type_url": item.type_url, "name": item.name, "value": base64.b64encode(item.body).decode()}
            for layer in snapshot.layers
            for item in layer
        ],
    }
