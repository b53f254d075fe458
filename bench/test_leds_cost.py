"""One endpoint of a large service leaves: what the streams of its clients send, by EDS and one by one (LEDS)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from bench.leds.collection_server import endpoint
from tests.stream.test_collections import Service
from tests.stream.test_shared_collections import Mesh

from kumafast.generation.endpoints import collection_assignment, lb_endpoint
from kumafast.snapshot import EndpointEntry, Layer, LoadAssignment, Snapshot
from kumafast.snapshot.collection import CollectionPointer
from kumafast.snapshot.resource import ENDPOINT, LB_ENDPOINT
from kumafast.stream import wire
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

pytestmark = pytest.mark.gate

ENDPOINTS, STREAMS, ROUNDS = 5_000, 20, 5
BYTES_RATIO_MIN = 1_000
CPU_RATIO_MIN = 1.0


class Streams:
    """The sessions of the clients of one service."""

    def __init__(self, layer: Callable[[LoadAssignment], Layer]) -> None:
        self.assignment = LoadAssignment("backend")
        self.entries = [
            EndpointEntry.of(zone="default", order=number, lb_endpoint=lb_endpoint(endpoint(number)))
            for number in range(ENDPOINTS)
        ]
        self.assignment.alter([], self.entries)
        self._layer = layer
        self.snapshot = Snapshot([layer(self.assignment)])
        self.sessions = [Session(Variant.DELTA, epoch=str(number)) for number in range(STREAMS)]
        self.first_bytes = 0
        for session in self.sessions:
            session.receive(Request(type_url=ENDPOINT, subscribe=["backend"]))
            self.first_bytes += self._drink(session)

    def leave(self) -> int:
        """One endpoint goes; the bytes that all are sent."""
        self.assignment.alter([self.entries.pop()], [])
        self.snapshot = self.snapshot.replaced({0: self._layer(self.assignment)})
        return sum(self._drink(session) for session in self.sessions)

    def _drink(self, session: Session) -> int:
        size = 0
        while (response := session.respond(self.snapshot)) is not None:
            size += len(wire.encode(response, Variant.DELTA, instance_id="cp"))
            session.receive(Request(type_url=response.type_url, nonce=response.nonce))
            self._follow(session, response)
        return size

    def _follow(self, session: Session, response: Response) -> None:
        for pointer in self.snapshot.resources(ENDPOINT).values():
            if isinstance(pointer, CollectionPointer) and response.type_url == ENDPOINT:
                epoch = response.resources[0].version.partition(".")[0]
                prefix = f"xdstp:///envoy.config.endpoint.v3.LbEndpoint/kumafast-{epoch}"
                names = [f"{prefix}/{collection}/*" for collection in pointer.collections]
                session.receive(Request(type_url=LB_ENDPOINT, subscribe=names))


def test_one_by_one_costs_the_one(report: Callable[[str], None]) -> None:
    plain = Streams(lambda assignment: assignment.layer())
    single = Streams(lambda assignment: assignment.collections(collection_assignment))
    assert single.first_bytes > ENDPOINTS * STREAMS * 100, "everybody has been sent all of them"
    sizes: dict[str, int] = {}
    costs: dict[str, float] = {}
    for name, streams in (("EDS", plain), ("LEDS", single)):
        rounds = []
        for _ in range(ROUNDS):
            started = time.process_time()
            sizes[name] = streams.leave()
            rounds.append(time.process_time() - started)
        costs[name] = min(rounds)
    report(
        f"{STREAMS} streams, one of {ENDPOINTS} leaves: EDS {sizes['EDS']:,} bytes, {1000 * costs['EDS']:.2f} ms; "
        f"LEDS {sizes['LEDS']:,} bytes, {1000 * costs['LEDS']:.2f} ms, without the sockets; "
        f"first load {plain.first_bytes:,} and {single.first_bytes:,} bytes"
    )
    assert sizes["EDS"] > BYTES_RATIO_MIN * sizes["LEDS"]


def test_through_a_server_whose_streams_share(report: Callable[[str], None]) -> None:
    """By EDS one is worked out for all; one by one each has names of its own, and still costs less when N is large."""
    costs: dict[tuple[int, str], float] = {}
    for count in (100, 1_000, ENDPOINTS):
        for name in ("EDS", "LEDS"):
            costs[count, name] = asyncio.run(_cost_of_a_leave(count, is_single=name == "LEDS"))
    lines = [
        f"{count:,}: {1e6 * costs[count, 'EDS']:.0f} and {1e6 * costs[count, 'LEDS']:.0f}"
        for count in (100, 1_000, ENDPOINTS)
    ]
    report(
        f"µs for each of {STREAMS} streams by EDS and LEDS, one endpoint of N leaves, no sockets: {'; '.join(lines)}"
    )
    assert costs[ENDPOINTS, "EDS"] > CPU_RATIO_MIN * costs[ENDPOINTS, "LEDS"]


async def _cost_of_a_leave(count: int, *, is_single: bool) -> float:
    """Processor seconds for each stream, from the change to the octets."""
    service = Service()
    service.entries = [
        EndpointEntry.of(zone="east", order=number, lb_endpoint=lb_endpoint(endpoint(number)))
        for number in range(count)
    ]
    service.assignment.alter([], service.entries)
    nodes = tuple(f"node-{number}" for number in range(STREAMS))
    mesh = Mesh(random.Random(0), nodes if is_single else (), () if is_single else nodes, service=service)
    await mesh.drink()
    rounds = []
    for _ in range(ROUNDS):
        service.remove(mesh.rng)
        sent, started = mesh.tally.sent, time.process_time()
        mesh.publish()
        while mesh.tally.sent < sent + STREAMS:
            await asyncio.sleep(0)
        rounds.append(time.process_time() - started)
        await mesh.drink()
    mesh.close()
    return min(rounds) / STREAMS
