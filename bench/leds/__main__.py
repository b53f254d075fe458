"""`python -m bench.leds`: one endpoint leaves a large service: what that costs the server, the wire and an Envoy.

Plain EDS beside endpoints as a collection. Counted bytes and processor time; the table of docs/decisions/008.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from bench import ending
from bench.leds.collection_server import CollectionServer, Naming
from bench.leds.real_envoy import RealEnvoy
from bench.leds.subscribers import subscribed

Row = dict[str, Any]

WAIT_S_MAX = 300.0


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        await asyncio.sleep(0.002)


async def measure_server(naming: Naming, *, endpoints: int, subscribers: int, rounds: int) -> Row:
    """The server's processor time and bytes to bring many up to date, first and after one endpoint left."""
    server = CollectionServer(naming, range(endpoints))
    await server.start()
    try:
        started = time.process_time()
        with subscribed(server.port, subscribers) as counters:
            await _until(lambda: counters.ready.value == subscribers)
            load_cpu, load_bytes = time.process_time() - started, server.sent.bytes
            messages = subscribers * (2 if naming is Naming.CONTENT else 1)
            cpu: list[float] = []
            wall: list[float] = []
            for number in range(rounds):
                arrived, started, begun = counters.messages.value, time.process_time(), time.monotonic()
                await server.remove(number)
                await _until(lambda arrived=arrived: counters.messages.value >= arrived + messages)  # type: ignore[misc]
                cpu.append(time.process_time() - started)
                wall.append(time.monotonic() - begun)
            sent = server.sent.bytes - load_bytes
    finally:
        await server.stop()
    return {
        "naming": naming.value,
        "endpoints": endpoints,
        "subscribers": subscribers,
        "load_cpu_s": round(load_cpu, 3),
        "load_mb": round(load_bytes / 1e6, 2),
        "leave_cpu_ms": round(1000 * min(cpu), 2),
        "leave_wall_ms": round(1000 * min(wall), 1),
        "leave_kb": round(sent / rounds / 1e3, 1),
    }


async def measure_envoy(naming: Naming, directory: Path, *, endpoints: int, rounds: int) -> Row:
    """A real Envoy's processor time and memory for the same."""
    server = CollectionServer(naming, range(endpoints))
    await server.start()
    envoy = RealEnvoy(directory, server.port)
    try:
        load_s = await envoy.members(endpoints, timeout_s=120)
        await asyncio.sleep(1.0)
        load_cpu, allocated = envoy.cpu_seconds(), await envoy.allocated_bytes()
        quiet = await _quiet_cpu(envoy)
        started, arrival = envoy.cpu_seconds(), 0.0
        for number in range(rounds):
            begun = time.monotonic()
            await server.remove(number)
            await asyncio.sleep(0.2)
            arrival += time.monotonic() - begun
        await envoy.members(endpoints - rounds)
        cpu = envoy.cpu_seconds() - started - quiet * arrival
        return {
            "naming": naming.value,
            "endpoints": endpoints,
            "envoy_load_s": round(load_s, 2),
            "envoy_load_cpu_s": round(load_cpu, 3),
            "envoy_allocated_mb": round(allocated / 1e6, 1),
            "envoy_leave_cpu_ms": round(1000 * cpu / rounds, 2),
            "warming_timeouts": await envoy.stat("cluster.backend.init_fetch_timeout"),
        }
    finally:
        await envoy.stop()
        await server.stop()


async def _quiet_cpu(envoy: RealEnvoy) -> float:
    """What it costs for nothing, in seconds a second."""
    started = envoy.cpu_seconds()
    await asyncio.sleep(2.0)
    return (envoy.cpu_seconds() - started) / 2.0


async def measure(*, sizes: list[int], subscribers: int, rounds: int) -> list[Row]:
    rows: list[Row] = []
    for endpoints in sizes:
        for naming in (Naming.EDS, Naming.STREAM, Naming.CONTENT):
            row = await measure_server(naming, endpoints=endpoints, subscribers=subscribers, rounds=rounds)
            with tempfile.TemporaryDirectory() as directory, contextlib.suppress(TimeoutError):
                row |= await measure_envoy(naming, Path(directory), endpoints=endpoints, rounds=10)
            sys.stderr.write(f"{row}\n")
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.leds", description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10, 100, 1_000, 10_000], help="endpoints of the service"
    )
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument(
        "--rounds", type=int, default=3, help="endpoints that leave, one after another; the best counts"
    )
    parser.add_argument("--output", type=Path, help="the rows as JSON go here")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ending.early():
        rows = uvloop.run(measure(sizes=arguments.sizes, subscribers=arguments.subscribers, rounds=arguments.rounds))
    text = json.dumps(rows, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    sys.stdout.write("\t".join(columns) + "\n")
    for row in rows:
        sys.stdout.write("\t".join(str(row.get(column, "")) for column in columns) + "\n")


if __name__ == "__main__":
    main()
