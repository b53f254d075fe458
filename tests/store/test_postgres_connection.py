"""What is cut off because it takes too long is a time-out, whatever the driver makes of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kumafast.store.postgres.connection import Connection, bounded

pytestmark = pytest.mark.anyio


class _Driver:
    """As asyncpg: who is at work on a connection that is cut finds that its protocol is gone."""

    def __init__(self) -> None:
        self.protocol: Any = self
        self.cut = asyncio.Event()

    def terminate(self) -> None:
        self.protocol = None
        self.cut.set()

    async def work(self) -> None:
        await self.cut.wait()
        self.protocol.execute()


async def test_whatever_the_driver_raises_when_it_is_cut() -> None:
    driver = _Driver()
    with pytest.raises(TimeoutError):
        async with bounded(cast(Connection, driver), 0.0):
            await driver.work()


async def test_what_is_not_cut_raises_what_it_raises() -> None:
    driver = _Driver()
    with pytest.raises(ZeroDivisionError):
        async with bounded(cast(Connection, driver), 60.0):
            _ = 1 // 0
    async with bounded(cast(Connection, driver), 0.01):
        pass
    await asyncio.sleep(0.05)
    assert driver.protocol is driver
