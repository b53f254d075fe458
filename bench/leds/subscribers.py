"""Many clients of one service in a process of their own, so that what a server spends is the server's alone.

In: a port, how many. Out: counters in shared memory: who has everything, which messages have come, how many bytes.
Never: what the endpoints are.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.process
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvloop
from bench import ending
from bench.real_wires.client_wire import ClientWire
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LB_ENDPOINT

AT_ONCE = 16
"""So many get their first endpoints at a time."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What all of them have got."""

    ready: Any
    messages: Any
    bytes: Any


class _Subscriber:
    def __init__(self, number: int, counters: Counters) -> None:
        self.has_all = asyncio.Event()
        self.wire = ClientWire(self)
        self._number = number
        self._counters = counters
        self._collection = ""

    def opened(self) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["*"])
        request.node.id = f"client-{self._number}"
        self.wire.send(request.SerializeToString())

    def received(self, message: bytes) -> None:
        counters = self._counters
        counters.bytes.value += len(message) + 5
        counters.messages.value += 1
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
        self._send(discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
        if response.type_url == CLUSTER:
            self._send(discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINT, resource_names_subscribe=["backend"]))
        elif not self.has_all.is_set():
            collection = _collection(response) if response.type_url == ENDPOINT else ""
            if collection:
                self._send(
                    discovery_pb2.DeltaDiscoveryRequest(type_url=LB_ENDPOINT, resource_names_subscribe=[collection])
                )
            else:
                counters.ready.value += 1
                self.has_all.set()

    def closed(self) -> None:
        """Nobody comes back here."""

    def _send(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        self.wire.send(request.SerializeToString())


def _collection(response: discovery_pb2.DeltaDiscoveryResponse) -> str:
    body = response.resources[0].resource.value
    # A long one has its endpoints in it.
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body) if len(body) < 1_000 else None
    if assignment is None or not assignment.endpoints:
        return ""
    name: str = assignment.endpoints[0].leds_cluster_locality_config.leds_collection_name
    return name


async def _subscribe(port: int, count: int, counters: Counters) -> None:
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            subscriber = _Subscriber(number, counters)
            await loop.create_connection(lambda: subscriber.wire, "127.0.0.1", port)
            await subscriber.has_all.wait()

    await asyncio.gather(*(one(number) for number in range(count)))
    await asyncio.sleep(3_600)


def _run(port: int, count: int, counters: Counters) -> None:
    ending.by_its_parent()
    uvloop.run(_subscribe(port, count, counters))


@contextlib.contextmanager
def subscribed(port: int, count: int) -> Iterator[Counters]:
    """With so many clients in another process, of which `ready` have everything."""
    context = multiprocessing.get_context("spawn")
    counters = Counters(*(context.Value("q", 0, lock=False) for _ in range(3)))
    process: multiprocessing.process.BaseProcess = context.Process(target=_run, args=(port, count, counters))
    process.start()
    try:
        yield counters
    finally:
        process.terminate()
        process.join(20)
