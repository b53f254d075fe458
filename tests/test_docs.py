"""The examples in docstrings are run, and links lead somewhere: what a reader copies or follows works."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import pkgutil
import re
import shlex
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port
from typer.main import get_command

import kumafast
from kumafast.cli.main import app
from kumafast.settings import Settings

# The compiled modules have their own check, which reads the stubs too.
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(kumafast.__path__, "kumafast.")
    if not found.name.startswith("kumafast._core") and not found.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    with warnings.catch_warnings():
        # A module of generated messages may warn when it is first loaded; that is no example's affair.
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


@pytest.mark.parametrize(
    "name",
    ["kumafast.snapshot.cache", "kumafast.snapshot.snapshot", "kumafast.stream.server", "kumafast.insights.clients"],
)
def test_the_server_for_others_has_examples(name: str) -> None:
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    assert sum(len(each.examples) for each in found) > 0


ROOT = Path(__file__).parent.parent
SECURITY = ROOT / "docs" / "security.md"
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("loadtest/*.md")]


@pytest.mark.parametrize("example", IN_PYTHON, ids=range(len(IN_PYTHON)))
def test_the_readme_s_python_runs(example: str) -> None:
    # As it is written, but for its ports and its store, which others may have.
    settings = Settings(store="memory", api_port=0, dp_port=0, diagnostics_port=0)
    example = example.replace("ControlPlane()", "ControlPlane(settings)").replace("18000", str(free_port()))
    code = compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        done = eval(code, {"settings": settings})
        if done is not None:
            await done

    asyncio.run(run())


def test_the_readme_has_python() -> None:
    assert [word for word in ("ControlPlane()", "XdsServer(", "SelectorSet(") if word not in "".join(IN_PYTHON)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [each for each in links if "://" not in each and not (page.parent / each).exists()] == []


def _commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(kumafast [^`]+)`", text)
    return [shlex.split(line.partition(" > ")[0])[1:] for line in lines]


def test_the_commands_about_security_are_commands() -> None:
    """Each command and flag that the page names is there; what they do is tested where they are."""
    commands = _commands(SECURITY.read_text(encoding="utf-8"))
    assert len(commands) >= 8
    for arguments in commands:
        command: Any = get_command(app)
        named: list[str] = []
        for argument in arguments:
            if argument in getattr(command, "commands", {}):
                known = {option for each in command.params for option in each.opts}
                assert {flag for flag in named if flag.startswith("-")} <= known, arguments
                command, named = command.commands[argument], []
            else:
                named.append(argument)
        known = {option for each in command.params for option in each.opts}
        assert {flag for flag in named if flag.startswith("-")} <= known, arguments


def test_the_settings_about_security_are_settings() -> None:
    text = SECURITY.read_text(encoding="utf-8")
    root: Any = get_command(app)
    options = {option for each in root.commands["run"].params for option in (*each.opts, *each.secondary_opts)}
    everywhere = {option for arguments in _commands(text) for option in arguments if option.startswith("--")}
    named = set(re.findall(r"--[a-z-]+[a-z]", text))
    assert named <= options | everywhere | {"--name", "--tag"}, named - options - everywhere
    assert set(re.findall(r"KUMAFAST_[A-Z_]+", text)) <= {f"KUMAFAST_{each.name.upper()}" for each in fields(Settings)}
