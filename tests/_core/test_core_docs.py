"""What is public is documented, its examples run, and the stubs say what is compiled."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kumafast import _core

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("selectors", "digests", "versions", "cycles", "requests", "streams", "turns", "channels")


def documented() -> Iterator[tuple[str, object]]:
    for name in _core.__all__:
        thing = getattr(_core, name)
        yield name, thing
        if isinstance(thing, type):
            yield from ((f"{name}.{method}", getattr(thing, method)) for method in dir(thing) if method[0] != "_")


PUBLIC = dict(documented())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_are_there_and_their_examples_run(name: str) -> None:
    text = getattr(PUBLIC[name], "__doc__", None) or ""
    assert text or name.startswith("Matches."), f"{name} is not documented"
    test = doctest.DocTestParser().get_doctest(text, vars(_core) | {}, name, None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_core_s_classes_show_an_example() -> None:
    assert all(
        ">>>" in (PUBLIC[name].__doc__ or "")
        for name in _core.__all__
        if callable(PUBLIC[name]) and name not in ("Matches", "live_tags")
    )


# Arguments are taken where the object is made, so that calling __init__ again cannot change what is immutable.
ALLOWED = r"kumafast\._core\.\w+\.(__test__|(\w+\.)?__(reduce|setstate)_cython__|\w+\.__init__)"


@pytest.mark.slow
def test_stubs_agree_with_what_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "allowed").write_text(ALLOWED)
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", str(ROOT / "pyproject.toml")]
    command += ["--ignore-positional-only", "--concise", "--allowlist", str(tmp_path / "allowed")]
    command += [f"kumafast._core.{module}" for module in MODULES]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
