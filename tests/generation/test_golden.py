"""What each kind of part becomes, in whole. `KUMAFAST_UPDATE_GOLDEN=1 pytest tests/generation` writes it anew."""

from __future__ import annotations

import os

import pytest
import yaml
from tests.generation.scenarios import FILES, GOLDEN, SCENARIOS, documents, messages

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
    assert set(SCENARIOS) == {path.name for path in GOLDEN.iterdir()}
