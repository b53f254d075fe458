"""Small kinds of resources for the store's tests: one for each rule that the store keeps, without any real kind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import ClassVar

from kumafast.errors import StoreUnavailableError, UnknownTypeError
from kumafast.resources import Resource, ResourceKey, ResourceType, Scope
from kumafast.store import SqliteStore, Store, StoredResource
from kumafast.store.memory import Clock, utc_now
from kumafast.store.postgres import PostgresStore


def _type(name: str, scope: Scope = Scope.MESH, *, keeps_mesh: bool = False, owner: str | None = None) -> ResourceType:
    word = name.lower()
    return ResourceType(
        name=name, scope=scope, path=f"{word}s", singular=word, plural=f"{word}s", keeps_mesh=keeps_mesh, owner=owner
    )


class Kind(Resource):
    """A resource with one number in it."""

    value: int = 0


class FakeMesh(Kind):
    """What the others live in."""

    type: ClassVar[ResourceType] = _type("Mesh", Scope.GLOBAL)


class Thing(Kind):
    """A global resource."""

    type: ClassVar[ResourceType] = _type("Thing", Scope.GLOBAL)


class Box(Kind):
    """Keeps its mesh from being deleted."""

    type: ClassVar[ResourceType] = _type("Box", keeps_mesh=True)


class Note(Kind):
    """Goes with its mesh."""

    type: ClassVar[ResourceType] = _type("Note")


class Label(Kind):
    """Goes with its box."""

    type: ClassVar[ResourceType] = _type("Label", owner="Box")


class Stamp(Kind):
    """Goes with its label, and so with its box."""

    type: ClassVar[ResourceType] = _type("Stamp", owner="Label")


KINDS: dict[str, type[Kind]] = {kind.type.name: kind for kind in (FakeMesh, Thing, Box, Note, Label, Stamp)}


def mesh(name: str = "default", value: int = 0) -> Kind:
    return FakeMesh(name=name, value=value)


def key(type_name: str, name: str, mesh: str = "default") -> ResourceKey:
    return ResourceKey(type_name, "" if KINDS[type_name].type.scope is Scope.GLOBAL else mesh, name)


def make(at: ResourceKey, value: int = 0) -> Kind:
    return KINDS[at.type](name=at.name, mesh=at.mesh, value=value)


def encode(resource: Resource) -> bytes:
    return json.dumps({"type": resource.type.name, **resource.model_dump(mode="json")}).encode()


def decode(content: bytes) -> Resource:
    document = json.loads(content)
    name = document.pop("type")
    if name not in KINDS:
        raise UnknownTypeError(f"unknown resource type {name}")
    return KINDS[name](**document)


async def open_sqlite(path: Path, *, clock: Clock = utc_now) -> SqliteStore:
    return await SqliteStore.open(path, encode=encode, decode=decode, clock=clock)


async def open_postgres(url: str, *, instance: str = "", clock: Clock = utc_now) -> PostgresStore:
    return await PostgresStore.open(url, encode=encode, decode=decode, instance=instance, clock=clock)


WAIT_S = 60.0
"""How long anything may take that happens at all, on a machine with other things to do."""


async def reaches(store: Store, revision: int) -> None:
    """Return when a store has read what was written up to a revision."""
    async with asyncio.timeout(WAIT_S):
        while await store.revision() < revision:
            await asyncio.sleep(0.01)


async def insist(store: Store, thing: Thing) -> StoredResource:
    """Put it, however often that is refused."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await store.put(thing)
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
