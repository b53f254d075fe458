"""What each kind of part becomes, in whole. `KUMAFAST_UPDATE_GOLDEN=1 pytest tests/generation` writes it anew."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path

import pytest
import yaml
from tests.generation.scenarios import FILES, GOLDEN, SCENARIOS, documents, messages

from kumafast.generation import policies

_UPDATES = os.environ.get("KUMAFAST_UPDATE_GOLDEN") == "1"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_generates_the_golden_resources(scenario: str) -> None:
    generated = documents(messages(scenario))
    folder = GOLDEN / scenario
    if _UPDATES:
        for file in FILES.values():
            (folder / file).unlink(missing_ok=True)
        for file, resources in generated.items():
            (folder / file).write_text(yaml.safe_dump(resources, sort_keys=True), encoding="utf-8")
    expected = {
        file: yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        for file in FILES.values()
        if (folder / file).exists()
    }
    assert generated == expected


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_says_in_its_first_line_what_it_shows(scenario: str) -> None:
    first = (GOLDEN / scenario / "input.yaml").read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_every_folder_is_a_scenario() -> None:
    assert len(SCENARIOS) >= 15
    leaves = {path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_dir() and _is_leaf(path)}
    assert set(SCENARIOS) == leaves


def _is_leaf(folder: Path) -> bool:
    return not any(path.is_dir() for path in folder.iterdir())


def test_every_policy_has_a_folder() -> None:
    folders = {path.name.replace("-", "_") for path in GOLDEN.iterdir()}
    assert {info.name for info in pkgutil.iter_modules(policies.__path__)} <= folders
