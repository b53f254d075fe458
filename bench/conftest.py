"""What the benchmarks share: figures that are printed at the end of the run, whatever was asserted on them.

In: figures by name. Out: one table in the terminal. Never: a threshold; those are in the benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kumafast import garbage

Tell = Callable[[str, object], None]

_HERE = Path(__file__).parent
_FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    lines = request.config.stash.setdefault(_FIGURES, [])
    return lambda line: lines.append(f"{request.node.name}: {line}")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Show a figure, whether it is within its bound or not."""

    def show(name: str, value: object) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {name}: {value}")

    return show


@pytest.fixture
def as_served() -> Iterator[None]:
    """Python's collector as the server has it."""
    end = garbage.begin()
    yield
    end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_FIGURES, [])
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
