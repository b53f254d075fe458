"""Secrets at rest: nothing in clear in files, logs and answers of the command; a backup; a key that is lost."""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from tests.cli.running import Run, arguments, environment
from typer.testing import CliRunner

from kumafast.cli.main import app

MARKER = secrets.token_hex(24).encode()
MESH = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
}
KEY_FILES = {"secrets.key", "dp-server.key"}


def fill(api: str) -> dict[str, bytes]:
    """A mesh with TLS, keys for tokens, secrets of users; the content of all secrets by where they are."""
    assert httpx.put(f"{api}/meshes/default", json=MESH).status_code == 200
    for path, kind in (("/meshes/default/secrets/mine", "Secret"), ("/globalsecrets/ours", "GlobalSecret")):
        document = {"type": kind, "name": path.rpartition("/")[2], "data": base64.b64encode(MARKER).decode()}
        document |= {"mesh": "default"} if kind == "Secret" else {}
        assert httpx.put(api + path, json=document).status_code == 201
    for asked in (("dataplane-token", "--name", "a"), ("user-token", "--name", "anna")):
        assert CliRunner().invoke(app, ["--api", api, "generate", *asked]).exit_code == 0
    return contents(api)


def contents(api: str) -> dict[str, bytes]:
    """The content of all secrets, as an administrator reads them."""
    listed = [each for path in ("/secrets", "/globalsecrets") for each in httpx.get(api + path).json()["items"]]
    return {f"{each.get('mesh', '')}/{each['name']}": base64.b64decode(each["data"]) for each in listed}


@cache
def traces(content: bytes) -> tuple[bytes, ...]:
    """What would betray a secret: its bytes, its base64, and for a key in PEM its lines and the numbers in it.

    Each is asked for at hundreds of places, and reading a key takes some 100 ms: OpenSSL tests whether it is one.
    """
    return tuple(_traces(content))


def _traces(content: bytes) -> Iterator[bytes]:
    yield content
    yield base64.b64encode(content)
    if b"PRIVATE KEY" in content:
        yield from (line for line in content.splitlines() if len(line) > 40 and b"-----" not in line)
        key = serialization.load_pem_private_key(content[content.index(b"-----BEGIN") :], None)
        yield key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )[-32:]


def betrayed(where: bytes, held: dict[str, bytes]) -> list[str]:
    """The secrets of which something is there."""
    return [name for name, content in held.items() if any(trace in where for trace in traces(content))]


def private(held: dict[str, bytes]) -> dict[str, bytes]:
    """Those that must not be seen; an authority's certificate may."""
    return {name: content for name, content in held.items() if b"PRIVATE KEY" in content or content == MARKER}


def refusal(directory: Path, *flags: object, env: dict[str, str] | None = None) -> str:
    """What a control plane says that does not start."""
    ended = subprocess.run(
        arguments(directory, *flags), capture_output=True, text=True, timeout=60, env=environment(env), check=False
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_no_secret_is_in_clear_in_any_file_or_in_the_log(tmp_path: Path, runs: list[Run]) -> None:
    run = Run(tmp_path, "--log-level", "debug")
    runs.append(run)
    held = private(fill(run.api))
    assert len(held) >= 5, held.keys()
    seen_by_administrators = b"".join(httpx.get(run.api + path).content for path in ("/secrets", "/globalsecrets"))
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert {"kumafast.db", *KEY_FILES} <= {path.name for path in files}
    running = {path.name: betrayed(path.read_bytes(), held) for path in files if path.name not in KEY_FILES}
    assert not any(running.values()), running
    said = run.stop()
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert betrayed(content, held) == [], path
            assert b"PRIVATE KEY" not in content or path.name == "dp-server.key", path
            assert path.name not in KEY_FILES or path.stat().st_mode & 0o077 == 0
    assert betrayed(said.encode(), held) == []
    assert "PRIVATE KEY" not in said
    # The search finds what is there.
    assert set(betrayed(b"..." + MARKER + b"...", held)) == {"default/mine", "/ours"}
    assert betrayed(b"".join(held.values()), held) == betrayed(seen_by_administrators, held) == list(held)


def test_no_secret_is_in_an_answer_about_anything_else(tmp_path: Path, runs: list[Run]) -> None:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    run = Run(tmp_path, "--log-level", "debug", env={"KUMAFAST_SECRETS_KEY": key})
    runs.append(run)
    held = private(fill(run.api))
    command = ["--api", run.api]
    words = [each["path"] for each in httpx.get(f"{run.api}/_resources").json()["resources"]]
    others = [word for word in words if "secret" not in word]
    assert len(others) >= 5
    for word in others:
        shown = CliRunner().invoke(app, [*command, "get", word, "-o", "yaml"])
        assert shown.exit_code == 0, shown.output
        assert betrayed(shown.output.encode(), held) == [], word
    for path in ("/config", "/openapi.json", "/global-insights", "/meshes/default"):
        answer = httpx.get(run.api + path)
        assert answer.status_code == 200
        assert key not in answer.text
        assert betrayed(answer.content, held) == []
    # What is refused is not repeated.
    bad = {"type": "Secret", "mesh": "default", "name": "bad", "data": f"!{MARKER.decode()}"}
    refused = [httpx.put(f"{run.api}/meshes/default/secrets/bad", json=bad)]
    refused += [httpx.put(f"{run.api}/meshes/default/secrets/bad", json={**bad, "data": [MARKER.decode()]})]
    refused += [httpx.put(f"{run.api}/meshes/default/secrets/bad", json={**bad, "data": "YQ==", "name": "other"})]
    assert {answer.status_code for answer in refused} == {400}
    assert all(MARKER not in answer.content for answer in refused)
    said = run.stop()
    assert key not in said
    assert betrayed(said.encode(), held) == []


def copied(source: Path, target: Path, *names: str) -> Path:
    (target / "data").mkdir(parents=True)
    for path in (source / "data").iterdir():
        if any(path.name.startswith(name) for name in names):
            shutil.copy2(path, target / "data")
    return target


def test_a_backup_restores_and_a_lost_key_damages_nothing(tmp_path: Path, runs: list[Run]) -> None:
    first = Run(tmp_path / "first")
    runs.append(first)
    held = fill(first.api)
    mesh = httpx.get(f"{first.api}/meshes/default").json()
    first.stop()

    restored = Run(copied(tmp_path / "first", tmp_path / "restored", "kumafast.db", "secrets.key"))
    runs.append(restored)
    assert contents(restored.api) == held
    assert httpx.get(f"{restored.api}/meshes/default").json() == mesh
    restored.stop()

    lost = copied(tmp_path / "first", tmp_path / "lost", "kumafast.db")
    wrong = base64.b64encode(secrets.token_bytes(32)).decode()
    empty = tmp_path / "empty.key"
    empty.write_text("# nothing\n")
    for flags, env, hint in (
        ((), None, "secrets.key"),
        ((), {"KUMAFAST_SECRETS_KEY": wrong}, "from a backup"),
        (("--secrets-key-file", str(tmp_path / "nowhere.key")), None, "is not there"),
        (("--secrets-key-file", str(empty)), None, "holds no key"),
    ):
        said = refusal(lost, *flags, env=env)
        assert hint in said, said
        assert wrong not in said
        # No new key takes the place of the old one.
        assert not (lost / "data" / "secrets.key").exists()
    shutil.copy2(tmp_path / "first" / "data" / "secrets.key", lost / "data")
    found = Run(lost)
    runs.append(found)
    assert contents(found.api) == held


def test_keys_that_seal_rotate(tmp_path: Path, runs: list[Run]) -> None:
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    held: Any = None
    for key in (old, f"{new}\n{old}", new):
        run = Run(tmp_path, env={"KUMAFAST_SECRETS_KEY": key})
        runs.append(run)
        held = held or fill(run.api)
        assert contents(run.api) == held
        run.stop()
    assert "from a backup" in refusal(tmp_path, env={"KUMAFAST_SECRETS_KEY": old})


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_key_file_that_is_no_key_is_refused(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = base64.b64encode(secrets.token_bytes(32 if how == "changed" else 16)).decode()
    (data / "secrets.key").write_text(text + ("!" if how == "changed" else ""))
    said = refusal(tmp_path)
    assert "secrets.key" in said
    assert text not in said
