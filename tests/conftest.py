"""What tests of all stages share: a real Envoy and a real PostgreSQL, and nothing else."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests import postgresql as postgresql_server

# A machine that is shared has no deadline for one example; where the result lands, the same examples run each time.
settings.register_profile(
    "kumafast", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kumafast")

# Tests start hundreds of processes, each of which would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Have one authority stand for all whom Python trusts by default, here and in the processes that tests start.

    Each client of httpx reads all of those, which takes longer than what most tests do with it. Nobody here talks with
    anybody beyond this machine.
    """
    from kumafast.identity.authority import create_authority

    before = os.environ.get("SSL_CERT_FILE")
    file = tempfile.NamedTemporaryFile(prefix="kumafast-trusted-", suffix=".pem")  # noqa: SIM115
    file.write(create_authority("nobody", now=datetime.now(UTC)).certificate)
    file.flush()
    os.environ["SSL_CERT_FILE"] = file.name

    def forget() -> None:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before
        file.close()

    config.add_cleanup(forget)


# Fast and pure ones first: a broken rule shows in seconds, not after the Envoys. Before them what counts work in large
# meshes, the longest first: others take over from a process what it has last, so that each mesh is made in one of them.
_ORDER = ("slow", "envoy")


def _rank(item: pytest.Item) -> float:
    counted = item.get_closest_marker("counted")
    if counted is not None:
        return -float(counted.kwargs.get("seconds", 1))
    return max((_ORDER.index(mark) + 1 for mark in _ORDER if item.get_closest_marker(mark)), default=0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)
    for item in items:
        # Several Envoys with all their threads share two cores here: what they do not do twice in a row is a failure.
        if item.get_closest_marker("envoy") and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    """Looks for dead cycles leave out all tests and their modules, which stay: some hundred thousand objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def envoy_binary() -> str:
    """The path of a real Envoy; a test that needs one fails without it rather than pass unseen."""
    from kumafast.cli import envoy

    path: Path | None = envoy.find()
    assert path is not None, "no Envoy found: run `kumafast envoy install` or set KUMAFAST_ENVOY"
    return str(path)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgresql_server.Server]:
    """A PostgreSQL for the whole run; whoever stops one starts one of its own."""
    with postgresql_server.running() as server:
        yield server
