"""The example of the README's library section runs, and the README shows it as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).with_name("library_example.py")
README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs() -> None:
    runpy.run_path(str(EXAMPLE))


def test_the_readme_shows_the_example() -> None:
    code = EXAMPLE.read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    shown = README.read_text(encoding="utf-8")
    assert code in shown
