"""Policies of all kinds come and go in any order: proxies have what follows from what is there, byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from functools import cache

import pytest
from tests.all_policies import PATHS, documents
from tests.pipeline import Pipeline

from kumafast.identity.backends import create_builtin
from kumafast.resources import Mesh, Resource, catalog, parse, validate
from kumafast.resources.mesh import CertificateAuthority
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore

ORDERS = 12
_WORKDIR = "/tmp/kumafast"

Digests = dict[str, Hashable]


def dataplane(name: str, address: str, *reached: str, **tags: str) -> dict[str, object]:
    """An instance of the service that its name begins with; its traffic is redirected."""
    inbound = {"port": 8080, "tags": {"kuma.io/service": name[:-2], "kuma.io/protocol": "http", **tags}}
    outbound = [{"port": 10_000 + i, "tags": {"kuma.io/service": each}} for i, each in enumerate(reached)]
    networking: dict[str, object] = {"address": address, "inbound": [inbound], "outbound": outbound}
    networking["transparentProxying"] = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
    return {"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}


DATAPLANES = (
    dataplane("web-1", "10.0.0.1", "echo", "shop", at="a"),
    dataplane("web-2", "10.0.0.2", "echo", "shop", at="b"),
    dataplane("echo-1", "10.0.1.1"),
    dataplane("echo-2", "10.0.1.2"),
    dataplane("shop-1", "10.0.2.1", "echo", "web"),
)
POLICIES = {kind: parse(document) for kind, document in documents().items()}


def test_they_are_of_all_kinds_and_valid() -> None:
    kinds = {each.name for each in catalog.POLICY_TYPES if each.policy is not None and each.policy.is_target_ref}
    assert set(PATHS) == kinds
    assert {kind: validate(policy) for kind, policy in POLICIES.items()} == dict.fromkeys(PATHS, ())


@cache
def _mesh() -> tuple[Resource, ...]:
    """The mesh, with TLS and its authority."""
    authority = {"name": "ca-1", "type": "builtin"}
    mesh = Mesh.model_validate({"name": "default", "mtls": {"enabledBackend": "ca-1", "backends": [authority]}})
    return (mesh, *create_builtin("default", CertificateAuthority(name="ca-1", type="builtin"), now=datetime.now(UTC)))


async def _begun(policies: Iterable[str]) -> Pipeline:
    """A control plane over a mesh with these policies, not yet followed."""
    store = MemoryStore()
    for resource in (*_mesh(), *map(parse, DATAPLANES), *(POLICIES[kind] for kind in sorted(policies))):
        await store.put(resource)
    return Pipeline(store)


def _connect(pipeline: Pipeline) -> None:
    for document in DATAPLANES:
        node = f"default.{document['name']}"
        pipeline.reconciler.connect(f"stream of {node}", Node(node, metadata={"workdir": _WORKDIR}))


def _digests(pipeline: Pipeline) -> Digests:
    """All that each proxy has but its certificate, which is another whenever it is issued."""
    snapshots = {str(each["name"]): pipeline.snapshot(str(each["name"])) for each in DATAPLANES}
    return {name: tuple(map(snapshot.digest, (CLUSTER, ENDPOINT, LISTENER))) for name, snapshot in snapshots.items()}


async def _afresh(policies: Iterable[str], known: dict[frozenset[str], Digests]) -> Digests:
    """What a control plane gives that starts with these policies."""
    there = frozenset(policies)
    if there not in known:
        async with await _begun(there) as pipeline:
            _connect(pipeline)
            await pipeline.settle()
            known[there] = _digests(pipeline)
    return known[there]


async def _come_and_go(order: list[str], leaving: list[str], known: dict[frozenset[str], Digests]) -> None:
    async with await _begun(()) as pipeline:
        _connect(pipeline)
        await pipeline.settle()
        recorded = {frozenset[str](): _digests(pipeline)}
        there: set[str] = set()
        for kind in order:
            await pipeline.store.put(POLICIES[kind])
            there.add(kind)
            await pipeline.settle()
            now = recorded[frozenset(there)] = _digests(pipeline)
            assert now != recorded[frozenset(there - {kind})], f"{kind} changes nothing"
        for kind in leaving:
            await pipeline.store.delete(POLICIES[kind].key)
            there.remove(kind)
            await pipeline.settle()
            before = recorded.get(frozenset(there)) or await _afresh(there, known)
            assert _digests(pipeline) == before, f"{kind} has left something behind"


@pytest.mark.parametrize("first", range(0, ORDERS, 4))
def test_what_goes_leaves_what_was_there_before(first: int) -> None:
    known: dict[frozenset[str], Digests] = {}
    for seed in range(first, first + 4):
        rng = random.Random(seed)
        order = rng.sample(sorted(PATHS), len(PATHS))
        # As it came, backwards; and in any order, of which nobody has a record.
        leaving = order[::-1] if seed % 2 == 0 else rng.sample(order, len(order))
        asyncio.run(_come_and_go(order, leaving, known))
