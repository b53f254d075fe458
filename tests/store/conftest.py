"""What the tests of the store share: the back ends, open and closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.postgresql import Server, running
from tests.store import kinds

from kumafast.store import MemoryStore, Store

# The contract is not a test module by name, and its assertions should explain themselves all the same.
pytest.register_assert_rewrite("tests.store.contract", "tests.store.model")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = await kinds.open_sqlite(tmp_path / "store.db")
    else:
        opened = await kinds.open_postgres(request.getfixturevalue("postgresql").new_store())
    yield opened
    await opened.close()


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, to be stopped and killed."""
    with running() as server:
        yield server
