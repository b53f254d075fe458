"""What the benchmarks share: figures that are printed at the end of the run, whatever was asserted on them.

In: figures by name. Out: one table in the terminal; with `--figures FILE` those that are recorded, as JSON. Never: a
threshold; those are in the benchmarks.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from kumafast import garbage

Tell = Callable[[str, object], None]

_HERE = Path(__file__).parent
_FIGURES = pytest.StashKey[list[str]]()
_RECORDED = pytest.StashKey[dict[str, dict[str, float]]]()


class Record(Protocol):
    """Take figures down for `make bench`, by names that end in their unit: `record(edit_s=0.00003)`."""

    def __call__(self, **figures: float) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="what the benchmarks record goes here, as JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--figures")
    if path is not None:
        recorded = session.config.stash.get(_RECORDED, {})
        path.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents and not item.get_closest_marker("counted"):
            item.add_marker(pytest.mark.alone)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    lines = request.config.stash.setdefault(_FIGURES, [])
    return lambda line: lines.append(f"{request.node.name}: {line}")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Figures go by the module's name without its `test_`, then theirs: `matching.edit_s`."""
    recorded = request.config.stash.setdefault(_RECORDED, {})
    module = re.sub("^test_", "", request.path.stem)

    def take_down(**figures: float) -> None:
        recorded.setdefault(module, {}).update(figures)

    return take_down


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
