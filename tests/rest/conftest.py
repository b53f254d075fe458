"""What the tests of the API share: an application on a memory store, and a client that speaks with it in process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tests import builders
from tests.rest.fakes import Convergence, services

from kumafast.rest.api import create_api
from kumafast.store import MemoryStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    opened = MemoryStore()
    await opened.put(builders.mesh())
    yield opened
    await opened.close()


@pytest.fixture
def convergence() -> Convergence:
    return Convergence()


@pytest.fixture
async def client(store: MemoryStore, convergence: Convergence) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_api(services(store, convergence)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681") as opened:
        yield opened
