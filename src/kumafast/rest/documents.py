"""Stored resources as the JSON that the API shows.

In: what the store holds. Out: encoded JSON, one `bytes` for each resource. Never: the same resource encoded twice while
it is remembered; lists are joined from these bytes.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from kumafast import resources
from kumafast.resources import Resource, ResourceKey
from kumafast.rest.statuses import merged
from kumafast.store.store import StoredResource

CACHE_BYTES_MAX: Final = 64 * 1024 * 1024


class DocumentCache:
    """Encoded documents of what the store holds, at most `CACHE_BYTES_MAX` bytes; the oldest entries go first.

    A document goes with the stored value that it shows: names that are never used again leave nothing behind.
    """

    def __init__(self, *, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: dict[ResourceKey, _Entry] = {}
        # A value may go in any thread, and in the midst of anything: that is only noted.
        self._gone: deque[tuple[ResourceKey, weakref.ref[StoredResource]]] = deque()

    def get(self, stored: StoredResource, beside: object = None) -> bytes | None:
        """The document of this very value, and of what stands `beside` it, if it is remembered."""
        entry = self._entries.get(stored.resource.key)
        if entry is None or (entry.revision, entry.beside) != (stored.revision, beside):
            return None
        return entry.document

    def put(self, stored: StoredResource, document: bytes, beside: object = None) -> bytes:
        """Remember a document in place of that of any other revision; the same, to go on with instead."""
        key, gone = stored.resource.key, self._gone
        self._forget_gone()
        self._drop(key)
        shown = weakref.ref(stored, lambda reference: gone.append((key, reference)))
        # orjson leaves its bytes the room that it wrote in, up to seven times their length: a copy has just that.
        exact = bytes(memoryview(document))
        self._entries[key] = _Entry(stored.revision, beside, exact, shown)
        self._bytes += len(document)
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))
        return exact

    def _forget_gone(self) -> None:
        while self._gone:
            key, reference = self._gone.popleft()
            entry = self._entries.get(key)
            if entry is not None and entry.shown is reference:
                self._drop(key)

    def _drop(self, key: ResourceKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.document)

    def __len__(self) -> int:
        self._forget_gone()
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class _Entry:
    revision: int
    beside: object
    document: bytes
    shown: weakref.ref[StoredResource]


class Documents:
    """How this control plane's resources look on the API."""

    def __init__(self, *, zone: str, status_of: Callable[[Resource], Mapping[str, Any]] = lambda _: {}) -> None:
        """`status_of` says what is shown beside what users wrote, for types that have a status; it is never kept."""
        self._zone = zone
        self._status_of = status_of
        self._cache = DocumentCache()

    def encoded(self, stored: StoredResource) -> bytes:
        """The resource's JSON, from memory where possible."""
        if stored.resource.type.has_status:
            return orjson.dumps(self.document(stored))
        found = self._cache.get(stored)
        if found is None:
            found = self._cache.put(stored, orjson.dumps(self.document(stored)))
        return found

    def document(self, stored: StoredResource) -> dict[str, Any]:
        """The resource's fields in Kuma's order: identity, times, labels, then what the user wrote."""
        content = resources.to_document(stored.resource)
        if stored.resource.type.has_status:
            content = merged(content, self._status_of(stored.resource))
        return {**self.head(stored), **{name: value for name, value in content.items() if name not in HEAD_FIELDS}}

    def head(self, stored: StoredResource) -> dict[str, Any]:
        """The fields that are not part of the specification."""
        resource = stored.resource
        head: dict[str, Any] = {"type": resource.type.name}
        if resource.mesh:
            head["mesh"] = resource.mesh
        head["name"] = resource.name
        head["creationTime"] = time_text(stored.creation_time)
        head["modificationTime"] = time_text(stored.modification_time)
        if resource.labels:
            head["labels"] = dict(resource.labels)
        if kri := resources.kri(resource, zone=self._zone):
            head["kri"] = kri
        return head


HEAD_FIELDS: Final = frozenset({"type", "mesh", "name", "labels", "creationTime", "modificationTime", "kri"})


def time_text(time: datetime) -> str:
    """A UTC time in RFC 3339 as Go writes it: `Z`, and no more decimals than there are."""
    fraction = f".{time.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{time:%Y-%m-%dT%H:%M:%S}{fraction}Z"
