"""All that a store holds, as it holds it: what is checked, written into a file, and moved to another back end.

In: rows of a back end, or the lines of a file. Out: `Contents`, lines, what is wrong with them in words. Never: opening
what is sealed; secrets travel as they are kept, and their key by another way.

A file has one line of JSON for what it is, one for each resource, and one with their number and digest, so that a file
that was cut short or changed is not taken for whole. The log does not travel: whoever watched lists again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from kumafast.errors import KumafastError, StoreUnavailableError, UnknownTypeError
from kumafast.resources import decode
from kumafast.resources.resource import Resource, ResourceKey, Scope
from kumafast.store.draft import MESH_TYPE
from kumafast.store.sealing import SEALED_TYPES

Encode = Callable[[Resource], bytes]
Decode = Callable[[bytes], Resource]
"""A resource as a row has it, and back."""

FORMAT = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Row(NamedTuple):
    """A resource as it is kept; times in microseconds since 1970."""

    type: str
    mesh: str
    name: str
    revision: int
    creation_us: int
    modification_us: int
    content: bytes

    @property
    def key(self) -> ResourceKey:
        """Whose row it is."""
        return ResourceKey(self.type, self.mesh, self.name)


class LogRow(NamedTuple):
    """A change as it is kept; no content where it deleted."""

    revision: int
    type: str
    mesh: str
    name: str
    content: bytes | None


@dataclass(frozen=True)
class Contents:
    """A store at one moment. The log reaches from `floor + 1` to `revision`."""

    revision: int
    floor: int
    resources: list[Row] = field(repr=False)
    log: list[LogRow] = field(default_factory=list, repr=False)

    def faults(self, decode: Decode) -> list[str]:
        """Everything that is wrong, in words; nothing for a store that is as it should be."""
        return [*(words for row in self.resources for words in self.faults_of(row, decode)), *self._log_faults()]

    def faults_of(self, row: Row, decode: Decode) -> Iterator[str]:
        """What is wrong with one of the resources."""
        try:
            resource = decode(row.content)
        except UnknownTypeError as error:
            # What a newer kumafast has put there is its own, and stays.
            if orjson.loads(row.content).get("type") != row.type:
                yield f"{described(row.key)} cannot be read: {error}"
            return
        except (KumafastError, ValueError, KeyError) as error:
            yield f"{described(row.key)} cannot be read: {error}"
            return
        if resource.key != row.key:
            yield f"{described(row.key)} holds {described(resource.key)}"
        if not 0 < row.revision <= self.revision:
            yield f"{described(row.key)} is of revision {row.revision}, and the store is at {self.revision}"
        kind = resource.type
        if kind.scope is Scope.MESH and ResourceKey(MESH_TYPE, "", row.mesh) not in self._keys:
            yield f"{described(row.key)} is in a mesh that is not there"
        if kind.owner is not None and row.key._replace(type=kind.owner) not in self._keys:
            yield f"{described(row.key)} belongs to a {kind.owner} that is not there"

    @cached_property
    def _keys(self) -> frozenset[ResourceKey]:
        return frozenset(row.key for row in self.resources)

    def _log_faults(self) -> Iterator[str]:
        revisions = sorted({row.revision for row in self.log})
        if [self.floor, *revisions][-1] != self.revision:
            yield f"the log ends at revision {[self.floor, *revisions][-1]}, and the store is at {self.revision}"
        for before, after in pairwise([self.floor, *revisions]):
            if after != before + 1:
                yield f"the log has nothing between revisions {before} and {after}"
        held = {row.key: row for row in self.resources}
        newest = {ResourceKey(row.type, row.mesh, row.name): row for row in self.log}
        for key, change in newest.items():
            row = held.get(key)
            if (None if row is None else row.revision) != (None if change.content is None else change.revision):
                yield f"{described(key)} is not what the log says of it at revision {change.revision}"
            elif row is not None and row.content != change.content:
                yield f"{described(key)} is not as the log has it at revision {change.revision}"
        for key, row in held.items():
            if row.revision > self.floor and key not in newest:
                yield f"{described(key)} is of revision {row.revision}, of which the log knows nothing"


def to_lines(contents: Contents) -> Iterator[bytes]:
    """The lines of a file."""
    digest = hashlib.sha256()
    header = {"kumafast": "store", "format": FORMAT, "revision": contents.revision}
    for document in (header, *map(_document, contents.resources)):
        line = orjson.dumps(document) + b"\n"
        digest.update(line)
        yield line
    yield orjson.dumps({"resources": len(contents.resources), "sha256": digest.hexdigest()}) + b"\n"


def from_lines(lines: Iterable[bytes]) -> Contents:
    """What a file holds. Raises `StoreUnavailableError` where it is no such file, was cut short or changed."""
    digest = hashlib.sha256()
    documents: list[Any] = []
    last = b""
    for line in lines:
        if last:
            digest.update(last)
        last = line
        try:
            documents.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise StoreUnavailableError(f"line {len(documents) + 1} is not JSON: {error}") from error
    header = documents[0] if documents and isinstance(documents[0], dict) else {}
    if header.get("kumafast") != "store":
        raise StoreUnavailableError("this is no file that `kumafast store export` has written")
    if header.get("format") != FORMAT:
        raise StoreUnavailableError(f"its format is {header.get('format')}, and this kumafast knows {FORMAT} only")
    expected = {"resources": len(documents) - 2, "sha256": digest.hexdigest()}
    if documents[-1] != expected:
        raise StoreUnavailableError("it is not whole: it was cut short, or changed since it was written")
    revision = int(header["revision"])
    return Contents(revision, revision, [_row(document) for document in documents[1:-1]])


def decode_unsealed(content: bytes) -> Resource:
    """A resource as it is kept, a secret with no data: what is sealed stays so."""
    document = orjson.loads(content)
    if document.get("type") in SEALED_TYPES:
        document.pop("sealed")
        document["data"] = ""
    return decode(orjson.dumps(document))


def _document(row: Row) -> dict[str, Any]:
    return {**row._asdict(), "content": orjson.Fragment(row.content)}


def _row(document: dict[str, Any]) -> Row:
    return Row(**{**document, "content": orjson.dumps(document["content"])})


def described(key: ResourceKey) -> str:
    """A resource as people name it."""
    return f"{key.type} {key.name}" + (f" of mesh {key.mesh}" if key.mesh else "")


def to_us(time: datetime) -> int:
    """A time as rows have it."""
    return (time - _EPOCH) // _MICROSECOND


def from_us(time_us: int) -> datetime:
    """A row's time."""
    return _EPOCH + timedelta(microseconds=time_us)
