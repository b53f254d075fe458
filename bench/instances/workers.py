"""Workers of one command: how fast one and two of them push to thousands of streams, and what the death of one costs.

In: a server, how many streams. Out: for each number of workers the time of a push to all and whose CPU it took, with a
client that reads meanwhile and with one that is stopped until all was sent; how soon a dead worker's proxies are back.
Never: a threshold; those are with whoever asks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from bench.instances.crew import WAIT_S
from bench.instances.crew import fill as fill_rings
from bench.instances.pairs import Ring
from bench.real_wires.fleet import Fleet, until
from bench.wire import payload
from bench.wire.process import BenchmarkError, Process
from bench.wire.servers import Bench, prepare
from tests.instances import KEY, Workers
from tests.postgresql import Server

from kumafast.resources import Mesh, parse, with_defaults
from kumafast.store import Keyring, Put
from kumafast.store.postgres import PostgresStore

PROXIES = 2_000
"""Of which a dead worker's come back to the other."""
_ENDPOINTS = 84
_PUTS = 200
_LOOK_S = 0.002
_REST_S = 0.1
_SETTLE_S = 3.0


async def play(server: Server, directory: Path, *, streams: int, rounds: int) -> dict[str, Any]:
    """The figures of one worker, of two, and of one of two that is killed."""
    figures: dict[str, Any] = {"streams": streams, "message_bytes": len(payload.load_assignment(payload.SHARED, 0))}
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), with_go=False)
        for count in (1, 2):
            figures[f"workers_{count}"] = await _pushes(server, directory / str(count), bench, count, streams, rounds)
    for kind in ("reading", "stopped"):
        one, two = (figures[f"workers_{count}"][kind] for count in (1, 2))
        figures[f"ratio_{kind}"] = {
            # As far as workers and client had the cores for themselves.
            "by_elapsed": round(one["seconds"] / two["seconds"], 2),
            # However busy the machine was: two are through when the busier is.
            "by_cpu_of_the_busier": round(one["cpu_of_the_busiest_s"] / two["cpu_of_the_busiest_s"], 2),
            "cpu_of_both_to_one": round(two["cpu_of_all_workers_s"] / one["cpu_of_all_workers_s"], 2),
        }
    figures["killed"] = await _killed(server, directory / "killed")
    return figures


def _dataplane(name: str, address: str, service: str, *, outbounds: Sequence[str] = ()) -> dict[str, Any]:
    inbound = {"port": 8080, "tags": {"kuma.io/service": service, "kuma.io/protocol": "http"}}
    outbound = [{"port": 10_000 + at, "tags": {"kuma.io/service": to}} for at, to in enumerate(outbounds)]
    networking = {"address": address, "inbound": [inbound], "outbound": outbound}
    return {"type": "Dataplane", "mesh": "mesh", "name": name, "networking": networking}


async def _fill(url: str, streams: int) -> None:
    """A service of 2 KB of endpoints, and so many clients of it."""
    documents = [_dataplane(f"backend-{at}", f"10.200.0.{at + 1}", payload.SHARED) for at in range(_ENDPOINTS)]
    for number in range(streams):
        name = payload.node_id(number).partition(".")[2]
        address = f"10.1.{number >> 8}.{number & 255}"
        documents.append(_dataplane(name, address, "client", outbounds=[payload.SHARED]))
    store = await PostgresStore.open(url, keyring=Keyring([KEY]))
    try:
        await store.put(with_defaults(Mesh(name="mesh"), zone="default"))
        puts = [Put(with_defaults(parse(document), zone="default")) for document in documents]
        for start in range(0, len(puts), _PUTS):
            await store.write(puts[start : start + _PUTS])
    finally:
        await store.close()


async def _pushes(
    server: Server, directory: Path, bench: Bench, count: int, streams: int, rounds: int
) -> dict[str, Any]:
    url = server.new_store()
    await _fill(url, streams)
    workers = await asyncio.to_thread(Workers, directory, url, count, "--log-level", "warning")
    command = [
        str(bench.client), "--port", str(workers.dp_port), "--connections", str(streams),
        "--node", str(bench.node_file(is_large=False)), "--name", payload.SHARED,
    ]  # fmt: skip
    try:
        with Process(command, name="load client") as client:
            opened = await asyncio.to_thread(client.ask, "open")
            if opened["errors"] or opened["pushes"] < streams:
                raise BenchmarkError(f"{streams} streams were to be answered, not {opened['pushes']}")
            pids = workers.pids if count > 1 else [workers.process.pid]
            await asyncio.sleep(_SETTLE_S)
            each: dict[str, list[dict[str, float]]] = {"reading": [], "stopped": []}
            for number in range(2 * rounds):
                kind = "stopped" if number % 2 else "reading"
                figures = await _round(workers, client, pids, streams, number, is_stopped=kind == "stopped")
                each[kind].append(figures)
                await asyncio.sleep(_REST_S)
    finally:
        await asyncio.to_thread(workers.stop)
    return {
        kind: {name: round(median(figures[name] for figures in of_kind), 4) for name in of_kind[0]}
        for kind, of_kind in each.items()
    }


async def _round(
    workers: Workers, client: Process, pids: Sequence[int], streams: int, number: int, *, is_stopped: bool
) -> dict[str, float]:
    """One change that is pushed to all, from the answer of its write on."""
    client.tell(f"expect {streams}")
    ready = await asyncio.to_thread(client.hear)
    if ready["unexpected"]:
        raise BenchmarkError(f"{ready['unexpected']} pushes came unasked")
    if is_stopped:
        client.send(signal.SIGSTOP)
    try:
        before = [_cpu_s(pid) for pid in pids]
        async with httpx.AsyncClient(timeout=WAIT_S) as http:
            document = _dataplane("backend-0", f"10.201.0.{number + 1}", payload.SHARED)
            began = time.monotonic()
            response = await http.put(f"{workers.api}/meshes/mesh/dataplanes/backend-0", json=document)
            response.raise_for_status()
        sent_at = await _rest(pids) if is_stopped else 0.0
        spent = [_cpu_s(pid) - at for pid, at in zip(pids, before, strict=True)]
    finally:
        if is_stopped:
            client.send(signal.SIGCONT)
    answer = await asyncio.to_thread(client.hear)
    if answer["errors"] or answer["pushes"] != streams:
        raise BenchmarkError(f"{answer['pushes']} of {streams} pushes came, {answer['errors']} errors")
    ended = sent_at or answer["ended_ns"] / 1e9
    if not is_stopped:
        spent = [_cpu_s(pid) - at for pid, at in zip(pids, before, strict=True)]
    return {
        "seconds": ended - began,
        "pushes_a_second": streams / (ended - began),
        "cpu_of_all_workers_s": sum(spent),
        "cpu_of_the_busiest_s": max(spent),
        "client_cpu_s": answer["cpu_us"] / 1e6,
    }


async def _rest(pids: Sequence[int]) -> float:
    """When the last of some processes went to rest."""
    last = {pid: (_cpu_s(pid), time.monotonic()) for pid in pids}
    while time.monotonic() - max(at for _, at in last.values()) < _REST_S:
        await asyncio.sleep(_LOOK_S)
        for pid in pids:
            now = _cpu_s(pid)
            # A look at a lease is no work.
            if now - last[pid][0] > _LOOK_S / 20:
                last[pid] = (now, time.monotonic())
    return max(at for _, at in last.values())


def _cpu_s(pid: int) -> float:
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


async def _killed(server: Server, directory: Path) -> dict[str, Any]:
    """A worker of two is killed: when its proxies have streams again."""
    url, ring = server.new_store(), Ring(PROXIES)
    await fill_rings(url, ring)
    workers = await asyncio.to_thread(Workers, directory, url, 2, "--log-level", "warning")
    fleet = Fleet(map(ring.node_id, ring.numbers))
    try:
        fleet.start("127.0.0.1", workers.dp_port)
        await until(lambda: all(each.is_configured() for each in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        fleet.take_received()
        closed = fleet.streams["closed"]
        began = time.monotonic()
        os.kill(workers.pids[0], signal.SIGKILL)
        await until(lambda: fleet.streams["closed"] > closed, "cut off", timeout_s=WAIT_S)
        back_at = await until(lambda: fleet.connected == PROXIES, "back", timeout_s=WAIT_S)
        await asyncio.sleep(_SETTLE_S)
        return {
            "proxies": PROXIES,
            "of_the_dead": fleet.streams["closed"] - closed,
            "back_after_s": round(back_at - began, 2),
            "sent_again": sum(fleet.take_received().resources.values()),
        }
    finally:
        await fleet.stop()
        await asyncio.to_thread(workers.stop)
