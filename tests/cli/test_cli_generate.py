"""generate: each subcommand with and without a control plane; on stdout what was made and nothing else."""

from __future__ import annotations

import base64
import json
import ssl
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.cli.conftest import Api, Command
from tests.cli.running import Run
from tests.stream.grpc_client import create_certificate
from typer.testing import CliRunner, Result

from kumafast.cli.main import app
from kumafast.identity import signing_keys
from kumafast.resources import ResourceKey, Secret

NOWHERE = "http://127.0.0.1:9"


@lru_cache
def _pem() -> bytes:
    return signing_keys.create_signing_key()


def offline(*arguments: str) -> Result:
    """Run where no control plane is."""
    return CliRunner().invoke(app, ["--api", NOWHERE, "generate", *arguments])


def claims(token: str) -> dict[str, Any]:
    """What a token says; it has to be one line and nothing else."""
    assert token.count("\n") == 1
    assert token.strip().count(".") == 2
    document: dict[str, Any] = jwt.decode(token.strip(), options={"verify_signature": False})
    return document


def stored_key(api: Api, name: str, mesh: str = "") -> Any:
    """The private key that the server has made."""
    key = ResourceKey("Secret" if mesh else "GlobalSecret", mesh, name)
    resource = api.run(api.store.get(key)).resource
    return serialization.load_pem_private_key(resource.content, None)


def test_a_dataplane_token_of_the_control_plane(api: Api, kumafast: Command) -> None:
    result = kumafast(
        *("generate", "dataplane-token", "--name", "web-1", "--mesh", "default", "--valid-for", "2h"),
        *("--tag", "kuma.io/service=web", "--tag", "kuma.io/service=web-admin", "--workload", "w"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    said = claims(result.stdout)
    assert {name: said[name] for name in ("Name", "Mesh", "Tags", "Type", "Workload")} == {
        "Name": "web-1",
        "Mesh": "default",
        "Tags": {"kuma.io/service": ["web", "web-admin"]},
        "Type": "dataplane",
        "Workload": "w",
    }
    assert said["exp"] - said["iat"] == 7200
    key = stored_key(api, "dataplane-token-signing-key-default-1", "default")
    jwt.decode(result.stdout.strip(), key.public_key(), algorithms=["RS256"])


def test_a_user_token_of_the_control_plane(api: Api, kumafast: Command) -> None:
    result = kumafast("generate", "user-token", "--name", "anna", "--group", "a", "--group", "mesh-editor:default")
    assert (result.exit_code, result.stderr) == (0, "")
    said = claims(result.stdout)
    assert (said["Name"], said["Groups"]) == ("anna", ["a", "mesh-editor:default"])
    jwt.decode(result.stdout.strip(), stored_key(api, "user-token-signing-key-1").public_key(), algorithms=["RS256"])


@pytest.mark.parametrize("form", ["as printed", "PEM"])
def test_tokens_without_a_control_plane(tmp_path: Path, form: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(base64.b64encode(_pem()) + b"\n" if form == "as printed" else _pem())
    public = offline("signing-key", "--public-of", str(file))
    assert (public.exit_code, public.stderr) == (0, "")
    for arguments in (("dataplane-token", "--name", "web-1"), ("user-token", "--name", "anna")):
        result = offline(*arguments, "--signing-key", str(file), "--kid", "7", "--valid-for", "30m")
        assert (result.exit_code, result.stderr) == (0, "")
        assert claims(result.stdout)["Name"] == arguments[-1]
        assert jwt.get_unverified_header(result.stdout.strip())["kid"] == "7"
        jwt.decode(result.stdout.strip(), public.stdout, algorithms=["RS256"])


def test_a_signing_key_is_the_data_of_a_secret() -> None:
    result = offline("signing-key")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    secret = Secret(mesh="default", name="dataplane-token-signing-key-default-2", data=result.stdout.strip())
    assert list(secret.violations()) == []
    assert signing_keys.dataplane_keyset("default", {secret.name: secret.content}).signer()[0] == "2"


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    files = ("--cert-file", str(tmp_path / "c.pem"), "--key-file", str(tmp_path / "k.pem"))
    result = offline("tls-certificate", "--hostname", "cp.example", "--hostname", "10.0.0.1", *files)
    assert result.exit_code == 0, result.output
    certificate = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cp.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    again = offline("tls-certificate", "--hostname", "cp.example", *files)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    assert (tmp_path / "k.pem").read_bytes() == before


BAD = {
    "no control plane": (("dataplane-token",), "--api or KUMAFAST_API"),
    "a tag without a value": (("dataplane-token", "--tag", "web"), "KEY=VALUE"),
    "a time that is none": (
        ("user-token", "--name", "a", "--signing-key", "KEY", "--valid-for", "soon"),
        "--valid-for",
    ),
    "no time": (("user-token", "--name", "a", "--signing-key", "KEY", "--valid-for", "0s"), "greater than zero"),
    "a key that is not there": (("user-token", "--name", "a", "--signing-key", "/nowhere/key"), "cannot read"),
    "a key that is none": (("user-token", "--name", "a", "--signing-key", "NONE"), "generate signing-key"),
    "a place that is not there": (
        ("tls-certificate", "--hostname", "a", "--cert-file", "/nowhere/c", "--key-file", "/nowhere/k"),
        "cannot write",
    ),
    "a name that is none": (("tls-certificate", "--hostname", "é", "--cert-file", "DIR/c", "--key-file", "DIR/k"), "é"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_goes_wrong_is_said_and_nothing_is_printed(tmp_path: Path, what: str) -> None:
    arguments, hint = BAD[what]
    (tmp_path / "key").write_bytes(_pem())
    (tmp_path / "none").write_bytes(b"\xff\x00 not a key")
    places = {"KEY": str(tmp_path / "key"), "NONE": str(tmp_path / "none")}
    result = offline(*(places.get(each, each.replace("DIR", str(tmp_path))) for each in arguments))
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert hint in result.stderr
    assert "Traceback" not in result.output


def test_what_the_control_plane_refuses_is_said(kumafast: Command) -> None:
    for arguments, hint in (
        (("dataplane-token", "--mesh", "nowhere"), "nowhere"),
        (("dataplane-token", "--valid-for", "soon"), "validFor"),
        (("user-token", "--name", ""), "name: cannot be empty"),
    ):
        result = kumafast("generate", *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert hint in result.stderr


def command(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


def https_of(run: Run) -> str:
    """The address of the API over TLS, which is said in the log before the ready line."""
    said = "the API over TLS is at "
    run.wait_for(said)
    return run.stderr.partition(said)[2].partition("\n")[0]


def test_the_api_over_tls_with_a_certificate_of_our_making(tmp_path: Path, runs: list[Run]) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made = offline(
        *("tls-certificate", "--hostname", "127.0.0.1", "--cert-file", str(certificate), "--key-file", str(key))
    )
    assert made.exit_code == 0
    run = Run(tmp_path, "--api-tls-port", 0, "--api-tls-cert", certificate, "--api-tls-key", key)
    runs.append(run)
    url = https_of(run)
    good = command("--api", url, "--ca-file", str(certificate), "get", "meshes")
    assert (good.exit_code, "default" in good.stdout) == (0, True), good.output
    distrusted = command("--api", url, "get", "meshes")
    assert (distrusted.exit_code, distrusted.stdout) == (1, "")
    assert "--ca-file" in distrusted.stderr
    # A token is what counts where being on this machine is not enough.
    token = command("--api", url, "--ca-file", str(certificate), "generate", "user-token", "--name", "anna")
    reader = {"KUMAFAST_TOKEN": token.stdout.strip()}
    assert command("--api", url, "--ca-file", str(certificate), "get", "meshes", env=reader).exit_code == 0
    refused = command("--api", url, "--ca-file", str(certificate), "get", "secrets", env=reader)
    assert (refused.exit_code, "anna may not" in refused.stderr) == (1, True), refused.output


def test_the_api_for_clients_with_a_certificate(tmp_path: Path, runs: list[Run]) -> None:
    server = (tmp_path / "server.pem", tmp_path / "server.key")
    names = ("--hostname", "127.0.0.1", "--cert-file", str(server[0]), "--key-file", str(server[1]))
    assert offline("tls-certificate", *names).exit_code == 0
    files = {}
    for each in ("client", "stranger"):
        (tmp_path / each).mkdir()
        made = create_certificate(tmp_path / each)
        files[each] = (made.certificate, made.key)
    # One that is for servers only is no client's, whoever signed it.
    files["server"] = server
    client = files["client"]
    run = Run(
        tmp_path,
        *("--api-tls-port", 0, "--api-tls-cert", server[0], "--api-tls-key", server[1], "--api-client-ca", client[0]),
        "--no-localhost-is-admin",
    )
    runs.append(run)
    who: str | None
    for who, is_let_in in (("client", True), ("stranger", False), ("server", False), (None, False)):
        context = ssl.create_default_context(cafile=str(server[0]))
        if who is not None:
            context.load_cert_chain(*files[who])
        with httpx.Client(verify=context, timeout=10) as http:
            if is_let_in:
                assert http.get(f"{https_of(run)}/meshes/default/secrets").status_code == 200
            else:
                with pytest.raises(httpx.TransportError):
                    http.get(f"{https_of(run)}/meshes")
    assert command("--api", run.api, "get", "secrets").exit_code == 1


def test_the_administrators_token_is_shown_once(tmp_path: Path, runs: list[Run]) -> None:
    first = Run(tmp_path, "--no-localhost-is-admin", "--log-level", "debug")
    runs.append(first)
    first.wait_for("shown only now:\ney")
    token = first.stderr.partition("shown only now:\n")[2].partition("\n")[0]
    assert claims(token + "\n")["Groups"] == ["mesh-system:admin"]
    refused = command("--api", first.api, "generate", "dataplane-token")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "KUMAFAST_TOKEN" in refused.stderr
    allowed = command("--api", first.api, "generate", "dataplane-token", env={"KUMAFAST_TOKEN": token})
    assert claims(allowed.stdout)["Mesh"] == "default"
    said = first.stop()
    assert said.count(token) == 1
    assert allowed.stdout.strip() not in said
    second = Run(tmp_path, "--no-localhost-is-admin", "--log-level", "debug")
    runs.append(second)
    config = command("--api", second.api, "get", "meshes", "-o", "json", env={"KUMAFAST_TOKEN": token})
    assert json.loads(config.stdout)["total"] == 1
    said = second.stop()
    assert "shown only now" not in said
    assert token not in said
