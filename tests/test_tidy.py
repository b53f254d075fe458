"""The rules of the house, as tests: sizes, docstrings, imports, stubs, no paths of a machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = [path for folder in ("tests", "bench", "loadtest") for path in sorted((ROOT / folder).rglob("*.py"))]
NATIVE = [path for pattern in ("*.pyx", "*.pxd", "*.pxi", "*.hpp") for path in sorted((ROOT / "ext").glob(pattern))]

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager", "types", "misc"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCES, *TESTS, *NATIVE], ids=_name)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=_name)
def test_no_function_is_too_long(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_says_what_comes_in_goes_out_and_never_happens(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    if path.name == "__init__.py" or path.name == "__main__.py":
        assert docstring
    else:
        assert all(word in docstring for word in ("In:", "Out:", "Never:"))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_module_has_a_name_that_says_nothing(path: Path) -> None:
    assert not FORBIDDEN_NAMES & set(path.relative_to(ROOT / "src").with_suffix("").parts)


def test_every_compiled_module_has_a_stub() -> None:
    modules = re.findall(r"^kumafast_extension\((\w+)\)", (ROOT / "ext" / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert modules
    for module in modules:
        assert (ROOT / "src" / "kumafast" / "_core" / f"{module}.pyi").is_file()


def test_native_headers_know_no_python() -> None:
    for path in (ROOT / "ext").glob("*.hpp"):
        assert "Python.h" not in re.sub(r"//.*", "", path.read_text(encoding="utf-8")), path.name


def test_importing_kumafast_is_light() -> None:
    heavy = ("grpc", "google.protobuf", "pydantic", "uvloop")
    program = f"import sys, kumafast; print([module for module in {heavy} if module in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_layers_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_tree_names_no_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?:^|[^a-zA-Z0-9_./-])/(?:work|farm|root|home/\w+)/")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".png", ".db"} or not path.is_file():
            continue
        assert not pattern.search(path.read_text(encoding="utf-8", errors="replace")), name


def test_no_two_files_of_tests_share_a_name() -> None:
    """They are collected together, and a module is known by its file's name alone."""
    files = [path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("test_*.py")]
    names = Counter(path.name for path in files)
    assert [name for name, count in names.items() if count > 1] == []
