"""Host names of dataplanes: resolved apart, announced when they change, kept when the name server is away."""

from __future__ import annotations

import asyncio

from kumafast.addresses import Addresses, look_up


class NameServer:
    def __init__(self) -> None:
        self.records: dict[str, str | None] = {}
        self.asked: list[str] = []

    async def look_up(self, host: str) -> str | None:
        self.asked.append(host)
        await asyncio.sleep(0)
        return self.records.get(host)


async def until(condition: object) -> None:
    for _ in range(500):
        if callable(condition) and condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("did not happen")


def test_a_name_is_announced_when_it_has_an_address_and_when_that_changes() -> None:
    async def main() -> None:
        server, changes, in_use = NameServer(), list[str](), {"db"}
        addresses = Addresses(in_use=lambda: in_use, changed=changes.append, look_up=server.look_up, refresh_s=0.01)
        task = asyncio.create_task(addresses.follow())
        assert addresses.get("10.0.0.1") == "10.0.0.1"
        assert addresses.get("db") is None
        server.records["db"] = "10.0.0.2"
        await until(lambda: addresses.get("db") == "10.0.0.2")
        server.records["db"] = "10.0.0.3"
        await until(lambda: addresses.get("db") == "10.0.0.3")
        server.records["db"] = None
        asked = len(server.asked)
        await until(lambda: len(server.asked) > asked + 2)
        assert addresses.get("db") == "10.0.0.3"
        assert changes == ["db", "db"]
        in_use.clear()
        await until(lambda: not addresses._known)
        task.cancel()

    asyncio.run(main())


def test_without_names_nothing_runs() -> None:
    async def main() -> None:
        server = NameServer()
        addresses = Addresses(in_use=list, changed=lambda _: None, look_up=server.look_up, refresh_s=0.001)
        task = asyncio.create_task(addresses.follow())
        addresses.get("10.0.0.1")
        await asyncio.sleep(0.05)
        assert not server.asked
        task.cancel()

    asyncio.run(main())


def test_the_real_look_up_knows_localhost_and_survives_nonsense() -> None:
    assert asyncio.run(look_up("localhost")) == "127.0.0.1"
    assert asyncio.run(look_up("no-such-host.invalid")) is None
