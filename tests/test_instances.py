"""Two control planes on one PostgreSQL, as processes: whichever dies, proxies and writers go on with the other."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from bench.real_wires.fleet import Fleet, until
from tests.instances import (
    KEY,
    NAMES,
    NODES,
    WAIT_S,
    Balancer,
    Instance,
    came_back,
    dataplane,
    differences,
    fill,
    insights_of,
    is_open_at_one,
    online,
    pair,
    settled,
    shown,
)
from tests.postgresql import Server, running

from kumafast.store import Keyring
from kumafast.store.postgres import PostgresStore

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def mortal() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def instances(mortal: Server, tmp_path: Path) -> Iterator[tuple[Instance, Instance]]:
    with pair(tmp_path, mortal.new_store()) as two:
        yield two


async def test_what_one_is_told_all_do_and_a_death_costs_nothing(instances: tuple[Instance, Instance]) -> None:
    first, second = instances
    balancer, fleet = Balancer([first.dp_port, second.dp_port]), Fleet(NODES)
    async with httpx.AsyncClient(timeout=30) as client, balancer.serve() as port:
        await fill(client, second.api)
        fleet.start("127.0.0.1", port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        await shown(client, second.api, set(NAMES))
        # Written to the one, and sent by the other.
        written = await client.put(f"{second.api}/meshes/default/dataplanes/{NAMES[0]}", json=dataplane(NAMES[0], 81))
        assert written.status_code == 200
        await settled(first.url, fleet)

        fleet.take_received()
        opened = fleet.streams["opened"]
        first.kill()
        await came_back(fleet, opened)
        await shown(client, second.api, set(NAMES))
        # Who moves, and holds what is current, is sent nothing.
        received = fleet.take_received()
        assert (sum(received.resources.values()), received.removed) == (0, 0)
        # The dead one's lease runs out meanwhile, and nobody is taken for offline by that.
        await insights_of(client, second.api, is_open_at_one)
        assert await online(client, second.api) == set(NAMES)
        written = await client.put(f"{second.api}/meshes/default/dataplanes/{NAMES[0]}", json=dataplane(NAMES[0], 82))
        assert written.status_code == 200
        await settled(first.url, fleet)
        await fleet.stop()


async def test_while_postgresql_is_away_proxies_and_readers_are_served(
    instances: tuple[Instance, Instance], mortal: Server
) -> None:
    first, second = instances
    fleet, late = Fleet(NODES[:-1]), Fleet(NODES[-1:])
    async with httpx.AsyncClient(timeout=30) as client:
        await fill(client, first.api)
        fleet.start("127.0.0.1", first.dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        await shown(client, second.api, set(NAMES[:-1]))
        mortal.send(signal.SIGSTOP)
        path = f"/meshes/default/dataplanes/{NAMES[0]}"
        for instance in instances:
            began = time.monotonic()
            refused = await client.put(instance.api + path, json=dataplane(NAMES[0], 90))
            # 4 s, and some for a machine that has other things to do.
            assert time.monotonic() - began < 15
            assert refused.status_code == 503
            assert "PostgreSQL at 127.0.0.1" in refused.json()["detail"]
            assert (await client.get(instance.api + path)).status_code == 200
        # Who comes now is configured too, and nobody who is there has lost its stream.
        late.start("127.0.0.1", second.dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in late.envoys.values()), "late", timeout_s=WAIT_S)
        assert fleet.streams["closed"] == 0
        mortal.send(signal.SIGCONT)
        async with asyncio.timeout(WAIT_S):
            while (await client.put(first.api + path, json=dataplane(NAMES[0], 91))).status_code != 200:
                await asyncio.sleep(0.1)
        await shown(client, first.api, set(NAMES))
        async with asyncio.timeout(WAIT_S):
            while {*await differences(first.url, fleet), *await differences(first.url, late)}:
                await asyncio.sleep(0.1)
        assert (fleet.streams["closed"], late.streams["closed"]) == (0, 0)
        assert fleet.received.held_already == 0
        await asyncio.gather(fleet.stop(), late.stop())
    second.stop()
    # What they have missed was in the log: neither read all anew.
    assert "is back after" in second.stderr
    assert "reading it anew" not in first.stderr + second.stderr


async def test_who_goes_with_an_instance_is_offline(instances: tuple[Instance, Instance]) -> None:
    first, second = instances
    here, there = Fleet(NODES[::2]), Fleet(NODES[1::2])
    async with httpx.AsyncClient(timeout=30) as client:
        await fill(client, second.api)
        here.start("127.0.0.1", first.dp_port)
        there.start("127.0.0.1", second.dp_port)
        await shown(client, second.api, set(NAMES))
        first.kill()
        seconds = await shown(client, second.api, set(NAMES[1::2]))
        print(f"offline {seconds:.1f} s after the death of their instance")  # noqa: T201
        await asyncio.gather(here.stop(), there.stop())


async def test_who_moves_stays_online(instances: tuple[Instance, Instance]) -> None:
    first, second = instances
    balancer, fleet = Balancer([first.dp_port]), Fleet(NODES)
    async with httpx.AsyncClient(timeout=30) as client, balancer.serve() as port:
        await fill(client, first.api)
        fleet.start("127.0.0.1", port)
        for target in (second, first, second):
            balancer.ports = [target.dp_port]
            opened = fleet.streams["opened"]
            fleet.cut()
            await came_back(fleet, opened)
        # What the instances that were left had to say has been said when there is one open subscription for each.
        await insights_of(client, second.api, is_open_at_one)
        await shown(client, second.api, set(NAMES))
        await shown(client, first.api, set(NAMES))
        await fleet.stop()


async def test_an_authority_changes_once_the_proxies_of_all_trust_the_new_one(
    instances: tuple[Instance, Instance],
) -> None:
    first, second = instances
    here, there = Fleet(NODES[::2]), Fleet(NODES[1::2])
    async with httpx.AsyncClient(timeout=30) as client:
        await fill(client, second.api)
        here.start("127.0.0.1", first.dp_port)
        there.start("127.0.0.1", second.dp_port)
        await shown(client, second.api, set(NAMES))
        for survivors in ((first, second), (second,)):
            if len(survivors) == 1:
                # The chores of a leader that dies are another's.
                first.kill()
            backend = f"ca-{len(survivors)}"
            mtls = {"enabledBackend": backend, "backends": [{"name": backend, "type": "builtin"}]}
            mesh = {"type": "Mesh", "name": "default", "mtls": mtls}
            written = await client.put(f"{second.api}/meshes/default", json=mesh)
            assert written.status_code == 200, written.text
            await _signs(second.url, backend)
        await asyncio.gather(here.stop(), there.stop())
    second.stop()
    assert "do not take whom to trust" not in first.stderr + second.stderr


async def _signs(url: str, backend: str) -> None:
    """Return when the certificates of the mesh are signed by a backend."""
    from kumafast.identity.trust import Trust, trust_name
    from kumafast.resources import ResourceKey, Secret

    store = await PostgresStore.open(url, keyring=Keyring([KEY]))
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(Exception):
                    held = (await store.get(ResourceKey("Secret", "default", trust_name("default")))).resource
                    assert isinstance(held, Secret)
                    if Trust.from_content(held.content).backend.name == backend:
                        return
                await asyncio.sleep(0.1)
    finally:
        await store.close()
