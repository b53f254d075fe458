"""Endpoints one by one beside streams that share everything: names are one stream's, and no client sees one twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.stream.memory_client import MemoryClient
from tests.stream.test_collections import ZONES, Service

from kumafast._core import Tally
from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LB_ENDPOINT
from kumafast.stream import XdsServer

SEEDS, STEPS = 40, 40
NODES = ("a", "b", "c")
PLAIN = ("x", "y", "z")


class Client:
    """An Envoy on a stream of a server, as far as clusters and endpoints go."""

    def __init__(self, server: XdsServer, node_id: str, rng: random.Random) -> None:
        self.server, self.node_id, self.rng = server, node_id, rng
        self.held: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINT: {}}
        self.members: dict[str, dict[str, bytes]] = {}
        self.seen: set[str] = set()
        self.wire: MemoryClient
        self.connect()

    def connect(self) -> None:
        self.wire = MemoryClient(self.server, node_id=self.node_id)
        for type_url, names in ((CLUSTER, ["*"]), (ENDPOINT, ["backend"])):
            self.ask(type_url, subscribe=names, initial_resource_versions=self.held[type_url])
        if self.members:
            self.ask(LB_ENDPOINT, subscribe=list(self.members))

    def reconnect(self) -> None:
        self.wire.lose()
        self.connect()

    def ask(self, type_url: str, *, subscribe: list[str] | None = None, **fields: Any) -> None:
        self.wire.ask(type_url, resource_names_subscribe=subscribe or [], **fields)

    def drink(self, *, refuses: float = 0.0) -> bool:
        """Take and answer what has come; whether anything has."""
        self.wire.take()
        has_any = bool(self.wire.received)
        while self.wire.received:
            response = self.wire.received.popleft()
            is_refused = response.type_url == LB_ENDPOINT and self.rng.random() < refuses
            self.take(response, is_refused=is_refused)
            self.ask(response.type_url, response_nonce=response.nonce, error="no" if is_refused else None)
            if response.type_url == ENDPOINT:
                self.follow(response)
            self.wire.take()
        return has_any

    def take(self, response: Any, *, is_refused: bool) -> None:
        if response.type_url != LB_ENDPOINT:
            self.held[response.type_url].update((item.name, item.version) for item in response.resources)
            return
        for item in response.resources:
            if not is_refused or self.rng.random() < 0.5:
                self.members[_collection_of(item.name)][item.name] = item.resource.value
        for name in response.removed_resources:
            if not is_refused or self.rng.random() < 0.5:
                # Of a zone that has gone, which the newest pointer does not name any more, perhaps.
                self.members.get(_collection_of(name), {}).pop(name, None)

    def follow(self, response: Any) -> None:
        (pointer,) = response.resources
        names = pointer.resource.value.decode().split()
        assert not self.seen.intersection(names), "a name that this client was given before"
        self.seen.update(names)
        old, self.members = list(self.members), {name: {} for name in names}
        self.ask(LB_ENDPOINT, subscribe=names, resource_names_unsubscribe=old)

    def bodies(self) -> set[bytes]:
        return {body for members in self.members.values() for body in members.values()}


def _collection_of(member: str) -> str:
    return member.rpartition("/")[0] + "/*"


class Mesh:
    """A server with clients that take endpoints one by one, and others of the same service that do not."""

    def __init__(
        self,
        rng: random.Random,
        nodes: tuple[str, ...] = NODES,
        plain: tuple[str, ...] = PLAIN,
        *,
        service: Service | None = None,
    ) -> None:
        self.rng = rng
        self._nodes = (nodes, plain)
        self.cache = SnapshotCache()
        self.server = XdsServer(self.cache)
        self.service = Service() if service is None else service
        self.service.add("east")
        self.publish()
        self.single = [Client(self.server, node_id, rng) for node_id in nodes]
        self.plain = [MemoryClient(self.server, node_id=node_id) for node_id in plain]
        for client in self.plain:
            client.ask(CLUSTER, resource_names_subscribe=["*"])
            client.ask(ENDPOINT, resource_names_subscribe=["backend"])

    @property
    def tally(self) -> Tally:
        return self.server._fleet.tally

    def publish(self) -> None:
        single = self.service.snapshot()
        plain = Snapshot([single.layers[0], self.service.assignment.layer()])
        for nodes, snapshot in zip(self._nodes, (single, plain), strict=True):
            for node_id in nodes:
                self.cache.set(node_id, snapshot)

    async def drink(self, *, refuses: float = 0.0) -> None:
        """Until nobody is sent anything any more."""
        for _ in range(1_000):
            for _ in range(3):
                await asyncio.sleep(0)
            # What is large is written by turns.
            wires = [*(client.wire for client in self.single), *self.plain]
            has_any = [wire.protocol.queued(1) > 0 for wire in wires]
            has_any += [client.drink(refuses=refuses) for client in self.single]
            for client in self.plain:
                client.take()
                has_any.append(bool(client.received))
                while client.received:
                    response = client.received.popleft()
                    client.ask(response.type_url, response_nonce=response.nonce)
            if not any(has_any):
                return
        raise AssertionError("no end of responses")

    def close(self) -> None:
        for client in (*(client.wire for client in self.single), *self.plain):
            client.lose()
        self.server._fleet.stop()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_history_of_streams_that_stand_together(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        mesh = Mesh(rng)
        service = mesh.service
        for _ in range(STEPS):
            what = rng.random()
            if what < 0.4:
                service.add(rng.choice(ZONES))
            elif what < 0.65 and service.entries:
                service.remove(rng)
            elif what < 0.75:
                service.cluster_number += 1
            elif what < 0.9:
                rng.choice(mesh.single).reconnect()
            mesh.publish()
            if rng.random() < 0.7:
                await mesh.drink(refuses=0.2)
        for zone in ZONES:
            service.add(zone)
        mesh.publish()
        await mesh.drink()
        for client in mesh.single:
            assert client.bodies() == service.bodies()
        mesh.close()
        assert mesh.tally.bytes_kept < 1_000_000

    asyncio.run(main())


def test_only_those_with_collections_stand_alone() -> None:
    async def moves(nodes: tuple[str, ...]) -> tuple[int, int]:
        mesh = Mesh(random.Random(0), nodes)
        await mesh.drink()
        assert len({client.stream.standing for client in mesh.plain}) == 1
        alone = {client.wire.stream.standing for client in mesh.single}
        assert len(alone) == len(nodes)
        assert all(standing.is_private and standing.move_count == 0 for standing in alone)
        computed, repeated = mesh.tally.computed, mesh.tally.repeated
        mesh.service.add("east")
        mesh.publish()
        await mesh.drink()
        mesh.close()
        return mesh.tally.computed - computed, mesh.tally.repeated - repeated

    computed, repeated = asyncio.run(moves(()))
    assert repeated == computed * (len(PLAIN) - 1) > 0
    assert asyncio.run(moves(NODES)) == (computed * (1 + len(NODES)), repeated)


def test_streams_of_one_node_are_given_names_of_their_own() -> None:
    async def main() -> None:
        mesh = Mesh(random.Random(0), ("a",))
        mesh.single.append(Client(mesh.server, "a", mesh.rng))
        await mesh.drink()
        one, other = mesh.single
        assert one.bodies() == other.bodies() == mesh.service.bodies()
        assert one.seen.isdisjoint(other.seen)
        mesh.close()

    asyncio.run(main())
