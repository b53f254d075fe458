"""A control plane process and its sidecars, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.envoy.harness import Mesh


@pytest.fixture(params=["delta", "sotw"])
def mesh(request: pytest.FixtureRequest, tmp_path: Path, envoy_binary: str) -> Iterator[Mesh]:
    """An empty mesh, once for each variant of the protocol."""
    mesh = Mesh(tmp_path, envoy_binary, uses_delta=request.param == "delta")
    with mesh.ending:
        yield mesh


@pytest.fixture
def delta_mesh(tmp_path: Path, envoy_binary: str) -> Iterator[Mesh]:
    """An empty mesh whose Envoys speak delta."""
    mesh = Mesh(tmp_path, envoy_binary, uses_delta=True)
    with mesh.ending:
        yield mesh
