"""`kumafast dataplane run`: an Envoy that belongs to the mesh.

In: a Dataplane, or the name of one that is registered; the control plane's address. Out: Envoy, in this very process.
Never: anything between Envoy and the signals sent to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kumafast.cli.failure import CommandError, Commands

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Run the Envoy of a dataplane.")


CpAddress = Annotated[
    str, typer.Option("--cp-address", metavar="URL", help="The dp-server: dp=… of the line that `kumafast run` prints.")
]
DataplaneFile = Annotated[
    str | None,
    typer.Option("--dataplane-file", "-d", metavar="FILE|-", help="The Dataplane, registered with the start."),
]
DataplaneVar = Annotated[
    list[str] | None,
    typer.Option("--dataplane-var", "-v", metavar="KEY=VALUE", help="Replaces {{KEY}} in the file. May be repeated."),
]
CaCertFile = Annotated[
    Path | None,
    typer.Option("--ca-cert-file", help="Who vouches for the dp-server [default: the system's authorities]"),
]
CertFile = Annotated[
    Path | None, typer.Option("--cert-file", help="Our certificate, for a control plane that has --dp-client-ca.")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="The private key of --cert-file.")]
EnvoyPath = Annotated[
    str | None,
    typer.Option("--envoy", metavar="PATH", help="The Envoy to become [default: KUMAFAST_ENVOY, cache, PATH]"),
]
Workdir = Annotated[
    Path | None, typer.Option("--workdir", help="For the bootstrap and the admin socket [default: a temporary one]")
]
AdminPort = Annotated[int | None, typer.Option("--admin-port", min=1, max=65535, help="Envoy's admin on loopback.")]
DnsPort = Annotated[int | None, typer.Option("--dns-port", min=1, max=65535, help="Where DNS is served, if it is.")]
Metrics = Annotated[
    bool,
    typer.Option("--metrics/--no-metrics", help="Have a process beside Envoy answer for what a MeshMetric publishes."),
]
MetricsCertFile = Annotated[
    Path | None, typer.Option("--metrics-cert-file", help="Shown to who asks for metrics where a MeshMetric says so.")
]
MetricsKeyFile = Annotated[Path | None, typer.Option("--metrics-key-file", help="The key of --metrics-cert-file.")]
UnifiedNaming = Annotated[
    bool, typer.Option("--unified-naming", help="Listeners and clusters go by resource identifiers.")
]
PatienceS = Annotated[
    float, typer.Option("--patience-s", min=0, help="How long to wait for the control plane to answer and to know us.")
]


@app.command("run")
def run(
    cp_address: CpAddress = "https://127.0.0.1:5678",
    dataplane_file: DataplaneFile = None,
    name: Annotated[str | None, typer.Option("--name", help="Instead of a file: one that is registered.")] = None,
    mesh: Annotated[str, typer.Option("--mesh", help="The mesh of --name.")] = "default",
    dataplane_var: DataplaneVar = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="The dataplane's token.")] = None,
    ca_cert_file: CaCertFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    envoy: EnvoyPath = None,
    workdir: Workdir = None,
    admin_port: AdminPort = None,
    admin_socket: Annotated[Path | None, typer.Option("--admin-socket", help="Envoy's admin on a unix socket.")] = None,
    dns_port: DnsPort = None,
    metrics: Metrics = True,
    metrics_cert_file: MetricsCertFile = None,
    metrics_key_file: MetricsKeyFile = None,
    sotw: Annotated[bool, typer.Option("--sotw", help="State-of-the-world xDS instead of incremental.")] = False,
    unified_naming: UnifiedNaming = False,
    concurrency: Annotated[int | None, typer.Option("--concurrency", min=1, help="Envoy's worker threads.")] = None,
    log_level: Annotated[str, typer.Option("--log-level", help="Envoy's own.")] = "info",
    drain_time_s: Annotated[int, typer.Option("--drain-time-s", min=0, help="How long Envoy drains listeners.")] = 30,
    patience_s: PatienceS = 60,
) -> None:
    """Fetch the bootstrap from the control plane, then become Envoy."""
    from kumafast.cli import envoy as envoys
    from kumafast.cli import launcher

    if (dataplane_file is None) == (name is None):
        raise typer.BadParameter("give --dataplane-file, or --name of a dataplane that is registered")
    if admin_port is not None and admin_socket is not None:
        raise typer.BadParameter("give --admin-port or --admin-socket, not both")
    if (metrics_cert_file is None) != (metrics_key_file is None):
        raise typer.BadParameter("--metrics-cert-file and --metrics-key-file belong together")
    client = None
    if cert_file is not None and key_file is not None:
        client = launcher.ClientFiles(certificate=cert_file, key=key_file)
    elif cert_file is not None or key_file is not None:
        raise typer.BadParameter("--cert-file and --key-file belong together")
    resource = None if dataplane_file is None else _read_dataplane(dataplane_file, dataplane_var or [])
    binary = envoys.required(envoy)
    request = launcher.Request(
        mesh=mesh if resource is None else str(resource["mesh"]),
        name=str(name if resource is None else resource["name"]),
        resource=resource,
        token=None if token_file is None else _read(token_file).strip(),
        token_path=None if token_file is None else str(token_file.absolute()),
        ca_pem=None if ca_cert_file is None else _read(ca_cert_file),
        envoy_build=envoys.build_of(binary),
        dns_port=dns_port,
        uses_delta=not sotw,
        has_unified_names=unified_naming,
        metrics_certificate=None
        if metrics_cert_file is None or metrics_key_file is None
        else (str(metrics_cert_file.absolute()), str(metrics_key_file.absolute())),
    )
    launcher.launch(
        request,
        address=launcher.dp_server(cp_address),
        ca_file=ca_cert_file,
        client=client,
        patience_s=patience_s,
        workdir=workdir,
        admin=launcher.Admin(port=admin_port, socket=None if admin_socket is None else admin_socket.absolute()),
        has_metrics=metrics,
        envoy=binary,
        arguments=_arguments(concurrency, log_level, drain_time_s),
        tell=_tell,
    )


def _arguments(concurrency: int | None, log_level: str, drain_time_s: int) -> list[str]:
    threads = [] if concurrency is None else ["--concurrency", str(concurrency)]
    # Connections are asked to end with the first answer after their listener has changed. Gradually, one that carries
    # requests would go on under rules that hold no more, such as a permission that is gone, for most of that time.
    return ["--log-level", log_level, "--drain-time-s", str(drain_time_s), "--drain-strategy", "immediate", *threads]


def _read_dataplane(path: str, variables: Sequence[str]) -> dict[str, Any]:
    """The one Dataplane of a file, found valid; `CommandError` with all that is wrong."""
    from kumafast.cli import validation
    from kumafast.cli.documents import parse_variables, read_documents

    documents = read_documents([path], variables=parse_variables(variables))
    if len(documents) != 1:
        raise CommandError(f"{path} must hold one Dataplane, and holds {len(documents)} documents")
    content = documents[0].content
    if content.get("type") != "Dataplane":
        raise CommandError(f"{path} must hold a Dataplane; its type is {content.get('type')!r}")
    validation.fill_mesh(content)
    problems = validation.violations(content)
    if problems:
        raise CommandError(f"the Dataplane in {path} is not valid:", problems)
    return content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _tell(line: str) -> None:
    typer.echo(line, err=True)
