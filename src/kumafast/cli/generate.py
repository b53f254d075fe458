"""`kumafast generate`: tokens, the keys that sign them, certificates for servers.

In: for whom. Out: on stdout what was made and nothing else, so that it can be redirected into a file.
Never: anything stored, but for the key that the first token of a mesh makes on the server.

With `--signing-key` a token is signed here, and the control plane need not be reached.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any

import typer

from kumafast.cli.failure import CommandError, Commands
from kumafast.cli.target import ApiOption, connect

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Make tokens, signing keys and certificates.")

ValidForOption = Annotated[
    str, typer.Option("--valid-for", metavar="DURATION", help="How long the token is good, such as 24h.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--signing-key", metavar="PATH", help="Sign here, with this key (as `signing-key` prints it, or PEM)."
    ),
]
KidOption = Annotated[str, typer.Option("--kid", help="The serial of that key.")]


@app.command("dataplane-token")
def dataplane_token(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="The one dataplane that it is for; any without it.")] = "",
    mesh: Annotated[str, typer.Option("--mesh", "-m", help="The mesh that it is for.")] = "default",
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="KEY=VALUE", help="A value that the dataplanes' tag must have; several are alternatives."
        ),
    ] = None,
    workload: Annotated[str, typer.Option("--workload", help="The workload that it is for.")] = "",
    valid_for: ValidForOption = "24h",
    signing_key: KeyOption = None,
    kid: KidOption = "1",
    api: ApiOption = None,
) -> None:
    """Print a token with which dataplanes of a mesh may connect."""
    tags = _tags(tag or [])
    if signing_key is not None:
        from kumafast.identity.tokens import DATAPLANE_TYPE, DataplaneClaims

        values = {key: tuple(each) for key, each in tags.items()}
        claims = DataplaneClaims(Name=name, Mesh=mesh, Tags=values, Type=DATAPLANE_TYPE, Workload=workload)
        typer.echo(_sign(claims, signing_key, kid, valid_for))
        return
    request = {
        "name": name,
        "mesh": mesh,
        "tags": tags,
        "type": "dataplane",
        "workload": workload,
        "validFor": valid_for,
    }
    with connect(context, api) as client:
        typer.echo(client.post("/tokens/dataplane", request).text)


@app.command("user-token")
def user_token(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="Who the user is.")],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="mesh-system:admin for an administrator, mesh-editor:MESH for who edits a mesh."),
    ] = None,
    valid_for: ValidForOption = "24h",
    signing_key: KeyOption = None,
    kid: KidOption = "1",
    api: ApiOption = None,
) -> None:
    """Print a token of a user of the API; without a group the user may only read."""
    if signing_key is not None:
        from kumafast.identity.tokens import UserClaims

        typer.echo(_sign(UserClaims(Name=name, Groups=tuple(group or ())), signing_key, kid, valid_for))
        return
    with connect(context, api) as client:
        request = {"name": name, "groups": group or [], "validFor": valid_for}
        typer.echo(client.post("/tokens/user", request).text)


@app.command("signing-key")
def signing_key(
    public_of: Annotated[
        Path | None, typer.Option("--public-of", metavar="PATH", help="Print the public key of this one instead, PEM.")
    ] = None,
) -> None:
    """Print a new key for signing tokens, in base64: the `data` of a Secret or GlobalSecret."""
    from kumafast.identity.signing_keys import create_signing_key

    if public_of is None:
        typer.echo(base64.b64encode(create_signing_key()).decode())
        return
    from cryptography.hazmat.primitives import serialization

    public = _keyset(public_of, "1").public["1"]
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    typer.echo(pem.decode(), nl=False)


@app.command("tls-certificate")
def tls_certificate(
    hostname: Annotated[
        list[str], typer.Option("--hostname", help="A name or address of the server; may be given several times.")
    ],
    cert_file: Annotated[
        Path, typer.Option("--cert-file", metavar="PATH", help="Where to write the certificate.")
    ] = Path("cert.pem"),
    key_file: Annotated[Path, typer.Option("--key-file", metavar="PATH", help="Where to write its key.")] = Path(
        "key.pem"
    ),
) -> None:
    """Write a self-signed certificate and key for a server, PEM: for --dp-tls-cert, --api-tls-cert and their keys."""
    from kumafast.errors import SettingsError
    from kumafast.identity.server_certificate import write_server_certificate

    for file in (cert_file, key_file):
        if file.exists():
            raise CommandError(f"{file} is there already; it is not replaced, name another or remove it")
    try:
        write_server_certificate(certificate=cert_file, key=key_file, names=hostname)
    except (OSError, SettingsError) as error:
        raise CommandError(f"cannot write the certificate: {error}") from error
    typer.echo(f"certificate: {cert_file}\nkey: {key_file}")


def _tags(pairs: list[str]) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key or not value:
            raise CommandError(f"--tag has the form KEY=VALUE, got {pair!r}")
        tags.setdefault(key, []).append(value)
    return tags


def _sign(claims: Any, key: Path, kid: str, valid_for: str) -> str:
    from datetime import UTC, datetime

    from kumafast.identity import tokens
    from kumafast.resources.durations import as_timedelta

    try:
        length = as_timedelta(valid_for)
    except ValueError as error:
        raise CommandError(f"--valid-for {error}") from error
    if not length.total_seconds() > 0:
        raise CommandError("--valid-for must be greater than zero")
    return tokens.sign(claims, _keyset(key, kid), valid_for=length, now=datetime.now(UTC))


def _keyset(path: Path, kid: str) -> Any:
    from kumafast.identity import signing_keys

    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read the key {path}: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        try:
            content = base64.b64decode(content, validate=False)
        except ValueError:
            content = b""
    keyset = signing_keys.user_keyset({signing_keys.user_key_name(kid): content})
    if not keyset.private:
        raise CommandError(f"{path} holds no RSA key; `kumafast generate signing-key` makes one")
    return keyset
