"""The Envoys that the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clients.fleet import Fleet
from tests.clients.raw_envoy import ADS_MODES, SERVICES_MODES


@pytest.fixture(scope="module")
def fleet(envoy_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server, and a real Envoy for every mode."""
    fleet = Fleet(envoy_binary, [*ADS_MODES, *SERVICES_MODES], tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.close()
