"""Fetch a bootstrap from the control plane and become Envoy.

In: what is known of the dataplane, the dp-server's address. Out: a bootstrap file, then Envoy in place of this process.
Never: trust in a certificate that nobody vouched for; a process that stands between Envoy and its signals.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
import yaml

from kumafast import __version__
from kumafast.cli import metrics_server
from kumafast.cli import workdir as workdirs
from kumafast.cli.failure import CommandError
from kumafast.generation.names import ADS_CLUSTER, socket_path

_REQUEST_TIMEOUT_S = 10.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
_SCHEMES = {"https": "https", "grpcs": "https", "http": "http", "grpc": "http"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the control plane is told of a dataplane and its host. `resource` is None for one that is registered."""

    mesh: str
    name: str
    resource: Mapping[str, Any] | None
    token: str | None
    token_path: str | None
    ca_pem: str | None
    envoy_build: str
    dns_port: int | None
    uses_delta: bool
    has_unified_names: bool = False
    metrics_certificate: tuple[str, str] | None = None
    """Files on the host with a certificate and its key, for those who ask for metrics."""

    def document(self, workdir: Path) -> dict[str, Any]:
        """The body of `POST /bootstrap`, as kuma-dp writes it."""
        version = {
            "kumaDp": {"version": __version__, "gitTag": "", "gitCommit": "", "buildDate": ""},
            "envoy": {"version": self.envoy_build.split("/")[1], "build": self.envoy_build, "kumaDpCompatible": True},
        }
        optional = {
            "dataplaneResource": None if self.resource is None else json.dumps(self.resource),
            "dataplaneToken": self.token,
            "dataplaneTokenPath": self.token_path,
            "caCert": self.ca_pem,
            "dnsPort": self.dns_port,
            "metricsResources": None
            if self.metrics_certificate is None
            else dict(zip(("certPath", "keyPath"), self.metrics_certificate, strict=True)),
        }
        return {
            "mesh": self.mesh,
            "name": self.name,
            "proxyType": "dataplane",
            **{key: value for key, value in optional.items() if value is not None},
            "version": version,
            "dynamicMetadata": {},
            "features": self._features(),
            "operatingSystem": os.uname().sysname.lower(),
            "workdir": str(workdir),
        }

    def _features(self) -> list[str]:
        wanted = {"feature-sotw": not self.uses_delta, "feature-unified-resource-naming": self.has_unified_names}
        return [feature for feature, is_wanted in wanted.items() if is_wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Where Envoy's admin interface is put; nothing given means where the control plane puts it."""

    port: int | None = None
    socket: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """The certificate, with its chain, and private key that a dataplane shows the control plane, as PEM files."""

    certificate: Path
    key: Path


def dp_server(address: str) -> str:
    """The base URL of a dp-server; `CommandError` for what is none, and for plaintext to another machine."""
    parts = urlsplit(address)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise CommandError(f"{address!r} is not the address of a dp-server; it has the form https://127.0.0.1:5678")
    if scheme == "http" and not _is_loopback(parts.hostname):
        raise CommandError(f"{address} is plaintext to another machine, where a token could be read; use https://")
    return f"{scheme}://{parts.netloc}"


def launch(
    request: Request,
    *,
    address: str,
    ca_file: Path | None,
    client: ClientFiles | None,
    patience_s: float,
    workdir: Path | None,
    admin: Admin,
    has_metrics: bool,
    envoy: Path,
    arguments: Sequence[str],
    tell: Callable[[str], None],
) -> NoReturn:
    """Fetch the bootstrap and become Envoy; `CommandError` where that cannot be, and then nothing is left behind."""
    with workdirs.opened(workdir, socket=admin.socket) as directory:
        bootstrap = fetch_bootstrap(
            address, request, workdir=directory, patience_s=patience_s, ca_file=ca_file, client=client, tell=tell
        )
        if client is not None:
            show_certificate(bootstrap, client)
        place_admin(bootstrap, admin)
        if not request.uses_delta:
            use_sotw(bootstrap)
        path = write_bootstrap(bootstrap, directory)
        if has_metrics:
            answer_for_metrics(bootstrap, request, directory)
        tell(f"{request.mesh}.{request.name} becomes Envoy {request.envoy_build.split('/')[1]} with {path}")
        become_envoy(envoy, path, arguments)


def fetch_bootstrap(
    address: str,
    request: Request,
    *,
    workdir: Path,
    patience_s: float,
    ca_file: Path | None,
    client: ClientFiles | None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The bootstrap that the control plane gives, as a mapping.

    While the control plane is away, or does not know the dataplane yet, it is asked again for `patience_s` seconds.
    """
    ends, backoff_s, told = time.monotonic() + patience_s, _BACKOFF_FIRST_S, ""
    with httpx.Client(verify=_trust(address, ca_file, client), timeout=_REQUEST_TIMEOUT_S) as http:
        while True:
            problem = ""
            try:
                response = http.post(
                    f"{address}/bootstrap", json=request.document(workdir), headers={"Accept": "application/json"}
                )
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise CommandError(_distrust(address, error, ca_file)) from error
                problem = f"the control plane at {address} cannot be reached ({error})"
            else:
                problem = _worth_another_try(response, request)
                if not problem:
                    return _bootstrap_in(response)
            if time.monotonic() + backoff_s > ends:
                raise CommandError(f"{problem}; gave up after {patience_s:g} s")
            if problem != told:
                tell(f"{problem}; trying again for {patience_s:g} s")
                told = problem
            time.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)


def place_admin(bootstrap: dict[str, Any], admin: Admin) -> None:
    """Put the admin interface where the user wants it, and say so in the node's metadata."""
    if admin.port is None and admin.socket is None:
        return
    metadata = bootstrap.setdefault("node", {}).setdefault("metadata", {})
    for key in ("port", "address", "socketPath"):
        metadata.pop(f"dataplane.admin.{key}", None)
    interface = bootstrap.setdefault("admin", {})
    if admin.socket is not None:
        interface["address"] = {"pipe": {"path": str(admin.socket), "mode": 0o600}}
        metadata["dataplane.admin.socketPath"] = str(admin.socket)
    else:
        interface["address"] = {"socketAddress": {"address": "127.0.0.1", "portValue": admin.port}}
        metadata.update({"dataplane.admin.address": "127.0.0.1", "dataplane.admin.port": str(admin.port)})


def answer_for_metrics(bootstrap: Mapping[str, Any], request: Request, workdir: Path) -> None:
    """Start the process that answers for the Envoy's metrics, where the control plane has Envoy expect it."""
    metrics_server.start(
        metrics_socket=socket_path(str(workdir), f"kuma-mh-{request.name}-{request.mesh}"),
        config_socket=socket_path(str(workdir), "kuma-mesh-metric-config"),
        admin=bootstrap.get("admin", {}).get("address", {}),
    )


def show_certificate(bootstrap: dict[str, Any], client: ClientFiles) -> None:
    """Have Envoy show the control plane a certificate; it reads the files when it starts.

    `CommandError` where the bootstrap speaks to the control plane in plaintext.
    """
    clusters = bootstrap.get("staticResources", {}).get("clusters", [])
    secured = [
        each["transportSocket"] for each in clusters if each.get("name") == ADS_CLUSTER and "transportSocket" in each
    ]
    if not secured:
        raise CommandError("the bootstrap has no TLS towards the control plane, and --cert-file is for TLS")
    for socket in secured:
        socket["typedConfig"].setdefault("commonTlsContext", {})["tlsCertificates"] = [
            {
                "certificateChain": {"filename": str(client.certificate.absolute())},
                "privateKey": {"filename": str(client.key.absolute())},
            }
        ]


def use_sotw(bootstrap: dict[str, Any]) -> None:
    """Make the stream state-of-the-world, also where the control plane does not know the feature that asks for it."""
    ads = bootstrap.get("dynamicResources", {}).get("adsConfig")
    if ads is not None:
        ads["apiType"] = "GRPC"


def write_bootstrap(bootstrap: Mapping[str, Any], workdir: Path) -> Path:
    """Write the bootstrap where only its owner can read it, since it may hold a token; its path."""
    path = workdir / "bootstrap.yaml"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(dict(bootstrap), file, sort_keys=False, allow_unicode=True)
    return path


def become_envoy(envoy: Path, bootstrap: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by Envoy: the same process id, so that signals go straight to it."""
    # Hot restart needs a shared memory region for each Envoy of a host; kumafast starts anew and lets clients drain.
    command = [str(envoy), "--config-path", str(bootstrap), "--disable-hot-restart", *arguments]
    try:
        os.execv(envoy, command)
    except OSError as error:
        raise CommandError(f"{envoy} cannot be run: {error.strerror}") from error


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _trust(address: str, ca_file: Path | None, client: ClientFiles | None) -> ssl.SSLContext | bool:
    if not address.startswith("https"):
        if client is not None:
            raise CommandError(f"{address} is plaintext, and --cert-file is for TLS; use https://")
        return False
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise CommandError(
            f"--ca-cert-file {ca_file} holds no certificate in PEM: {error.strerror or error}"
        ) from error
    if client is not None:
        try:
            context.load_cert_chain(client.certificate, client.key)
        except OSError as error:
            raise CommandError(
                f"--cert-file {client.certificate} and --key-file {client.key} are no certificate and its key in PEM: "
                f"{error.strerror or error}"
            ) from error
    return context


def _distrust(address: str, error: Exception, ca_file: Path | None) -> str:
    if ca_file is not None:
        return f"the certificate of {address} is not one that {ca_file} vouches for ({error})"
    from kumafast.settings import Settings

    usual = Settings().data_path / "dp-server.crt"
    place = f"here it is {usual}" if usual.is_file() else "it prints the path when it starts"
    return (
        f"nobody vouches for the certificate of {address}. If the control plane made it itself, name the file "
        f"with --ca-cert-file: dp-server.crt in its data directory ({place})"
    )


def _worth_another_try(response: httpx.Response, request: Request) -> str:
    """Why to ask again, or nothing where the answer is good; `CommandError` where asking again is of no use."""
    if response.is_success:
        return ""
    if response.status_code == 404:
        return f"the control plane does not know the dataplane {request.name} of mesh {request.mesh}"
    said = _said(response)
    if response.status_code >= 500 or response.status_code == 429:
        return f"the control plane answered {response.status_code}: {said[0]}"
    raise CommandError(f"the control plane refused the dataplane ({response.status_code}): {said[0]}", said[1:])


def _said(response: httpx.Response) -> list[str]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return [response.text.strip()[:500] or response.reason_phrase]
    parameters = document.get("invalid_parameters") or []
    text = document.get("detail") or document.get("title") or response.reason_phrase
    return [str(text), *(f"{entry.get('field')}: {entry.get('reason')}" for entry in parameters)]


def _bootstrap_in(response: httpx.Response) -> dict[str, Any]:
    try:
        bootstrap = yaml.safe_load(base64.b64decode(response.json()["bootstrap"], validate=True))
    except (ValueError, KeyError, TypeError, binascii.Error, yaml.YAMLError) as error:
        raise CommandError(f"{response.request.url} answered with something that is no bootstrap") from error
    if not isinstance(bootstrap, dict):
        raise CommandError(f"{response.request.url} answered with something that is no bootstrap")
    return bootstrap
