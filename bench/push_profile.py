"""Where the processor time of a push goes, by sampling: from the snapshots of a change to the last acknowledgement.

In: the size of a regular mesh, a kind of change. Out: microseconds of CPU for each message, and for each status of a
proxy that is written to a file after it; a table of functions, of the push without those.
Never: sockets, HTTP/2, the clients' own work: between a server's writes and what it is told nobody looks.

    python -m bench.push_profile 2000 outbounds
    python -m bench.push_profile 2000 outbounds figures
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.flags import mesh_size
from bench.mesh_profile import Samples
from bench.regular_mesh import METADATA, RegularMesh, dataplane, fill, for_all, for_cell, for_inbounds, name
from envoy.service.discovery.v3 import discovery_pb2

from kumafast import garbage
from kumafast._core import Protocol, Stream
from kumafast.insights import Convergence, Insights
from kumafast.metrics import Metrics
from kumafast.observers import Observers
from kumafast.resources import Resource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import Change, SqliteStore, Store
from kumafast.stream.ads import Fleet
from kumafast.stream.messages import Variant

NUMBER = 7
"""The dataplane that comes and goes where endpoints change."""
# What a connection says that has handed a message on.
_TAKEN = 1


@dataclass(frozen=True, slots=True)
class Push:
    """CPU seconds of the server for one change: snapshots with their goals, first messages, all that answers bring, and
    the statuses of those who were pushed to, all at once.
    """

    published_s: float
    pushed_s: float
    answered_s: float
    stored_s: float
    messages: int
    statuses: int


class Connection:
    """What a stream writes to; an Envoy reads it when it is asked to."""

    def __init__(self, fleet: Fleet) -> None:
        self.unread: list[Any] = []
        self.stream: Stream = fleet.open(cast("Protocol", self), 1, variant=Variant.DELTA, type_url=None)

    def write(self, _: int, payload: Any) -> int:
        """Take a message, as the connection of a client that reads does."""
        self.unread.append(payload)
        return _TAKEN

    def answers(self) -> list[bytes]:
        """What Envoy says of what has come."""
        if not self.unread:
            return []
        self.unread.clear()
        session = self.stream.standing.session
        return [_ack(each.type_url, each.flight.nonce) for each in session._in_order if each.flight is not None]


def _request(type_url: str, **fields: Any) -> bytes:
    return bytes(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields).SerializeToString())


def _ack(type_url: str, nonce: str) -> bytes:
    return _request(type_url, response_nonce=nonce)


class PushedMesh(RegularMesh):
    """A regular mesh whose Envoys have streams of a server, which is watched as a control plane's is."""

    fleet: Fleet
    insights: Insights
    connections: list[Connection]

    async def open_all(self, store: Store) -> None:
        """Have every dataplane's Envoy configured, and its status in a store."""
        metrics = Metrics()
        convergence = Convergence(
            cache=self.cache, progress=self.reconciler, observe_seconds=metrics.proxy_convergence_seconds.observe
        )
        self.insights = Insights(
            store=store, convergence=convergence, metrics=metrics, instance_id="kumafast", flush_ms=1e9
        )
        observers = Observers(self.reconciler, self.insights)
        self.fleet = Fleet(self.cache, observer=observers, instance_id="kumafast", finish=lambda *_: None)
        self.connections = [Connection(self.fleet) for _ in range(self.size)]
        for number, connection in enumerate(self.connections):
            node_id = f"default.{name(number)}"
            snapshot = self.cache.get(node_id)
            assert snapshot is not None
            named = {"id": node_id, "metadata": METADATA}
            for request in (
                _request(CLUSTER, node=named),
                _request(LISTENER),
                _request(ENDPOINT, resource_names_subscribe=list(snapshot.resources(ENDPOINT))),
            ):
                connection.stream.message_received(request)
        await self._settle(None)
        await self.insights.flush()

    async def push(self, change: Resource | Change, samples: Samples | None) -> Push:
        """Commit a change, and have all that follows from it sent and answered."""
        commit = self.commit(change)
        before = self.fleet.tally.sent
        with _taken(samples):
            started = time.process_time()
            self.reconciler.take_in(commit, revision=self.revision)
            while self.reconciler.publish_slice():
                pass
            published = time.process_time() - started
        pushed, answered, statuses = await self._settle(samples)
        started = time.process_time()
        await self.insights.flush()
        stored = time.process_time() - started
        return Push(published, pushed, answered, stored, self.fleet.tally.sent - before, statuses)

    async def _settle(self, samples: Samples | None) -> tuple[float, float, int]:
        """CPU seconds of first messages and of what answers bring; how many streams were sent something."""
        pushed = answered = 0.0
        told: set[Stream] = set()
        while True:
            with _taken(samples):
                started = time.process_time()
                while len(self.fleet.turns):
                    await asyncio.sleep(0)
                pushed += time.process_time() - started
            said = [(each.stream, answer) for each in self.connections for answer in each.answers()]
            if not said:
                return pushed, answered, len(told)
            told.update(stream for stream, _ in said)
            with _taken(samples):
                started = time.process_time()
                for stream, answer in said:
                    stream.message_received(answer)
                answered += time.process_time() - started


def _taken(samples: Samples | None) -> AbstractContextManager[None]:
    return nullcontext() if samples is None else samples.taken()


def _changes(size: int) -> dict[str, tuple[int, Callable[[int], Resource | Change]]]:
    new = dataplane(NUMBER, size, host="10.200.200.200").model_copy(update={"name": "dp-new"})
    return {
        "endpoint": (400, lambda number: Change(new.key, None) if number % 2 else new),
        "one-percent": (40, lambda number: for_cell(2 + number)),
        "outbounds": (max(5, 10_000 // size), lambda number: for_all(2 + number)),
        "inbounds": (max(5, 10_000 // size), lambda number: for_inbounds(2 + number)),
    }


_SHORT = ("endpoint", "one-percent")


async def measure(size: int, kind: str, samples: Samples | None) -> list[Push]:
    """What some changes of a kind took."""
    mesh = PushedMesh(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.db"
        await fill(path, size)
        await mesh.load(path)
        mesh.connect_all()
        store = await SqliteStore.open(path)
        await mesh.open_all(store)
        rounds, change = _changes(size)[kind]
        pushes = [await mesh.push(change(number), samples if number > 1 else None) for number in range(rounds + 2)]
        await store.close()
    return pushes[2:]


def main() -> None:
    """Measure what the arguments ask for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.push_profile", description=__doc__, formatter_class=form)
    parser.add_argument("size", type=mesh_size, help="dataplanes of the mesh")
    parser.add_argument("kind", choices=("endpoint", "one-percent", "outbounds", "inbounds"), help="what changes")
    parser.add_argument("what", choices=("table", "figures"), nargs="?", default="table", help="[default: table]")
    arguments = parser.parse_args()
    if arguments.what == "table" and arguments.kind in _SHORT:
        parser.error(f"{arguments.kind} is too short for samples: ask for its `figures`")
    # While samples are taken the process's clock is as coarse as they are.
    samples = Samples() if arguments.what == "table" else None
    end = garbage.begin()
    pushes = asyncio.run(measure(arguments.size, arguments.kind, samples))
    end()
    sys.stdout.write(f"{samples.table() if samples is not None else _figures(pushes)}\n")


def _figures(pushes: list[Push]) -> str:
    messages, statuses = pushes[0].messages, pushes[0].statuses

    def typical(part: str, count: int) -> str:
        microseconds = statistics.median(getattr(each, f"{part}_s") for each in pushes) * 1e6 / count
        return f"{microseconds:.2f} {part}"

    shown = ", ".join(typical(part, messages) for part in ("published", "pushed", "answered"))
    return (
        f"µs of CPU for each of {messages} messages: {shown}; for each of {statuses} statuses: "
        f"{typical('stored', statuses)}"
    )


if __name__ == "__main__":
    main()
