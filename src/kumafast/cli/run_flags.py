"""The flags of `kumafast run`: one for each setting.

In: nothing. Out: the types of the command's parameters. Never: defaults; `settings` has them, below file and variables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

LOG_LEVELS = ("debug", "info", "warning", "error")


def _flag(name: str, help_text: str, *, metavar: str | None = None) -> Any:
    variable = "KUMAFAST_" + name.removeprefix("--").split("/")[0].replace("-", "_").upper()
    return typer.Option(name, help=help_text, metavar=metavar, envvar=variable, show_default=False)


ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="KUMAFAST_CONFIG", help="A YAML file of settings.")
]

StoreOption = Annotated[
    str | None,
    _flag("--store", "memory, sqlite:PATH or postgres://… [default: SQLite in the data directory]", metavar="URL"),
]

DataDirOption = Annotated[str | None, _flag("--data-dir", "For the store and certificates [default: the user's own].")]

HostOption = Annotated[str | None, _flag("--host", "The address to listen on [default: 127.0.0.1]")]

ApiPortOption = Annotated[int | None, _flag("--api-port", "The API's port, 0 for any free one [default: 5681]")]

DpPortOption = Annotated[int | None, _flag("--dp-port", "The port for Envoys, 0 for any free one [default: 5678]")]

DiagnosticsPortOption = Annotated[
    int | None, _flag("--diagnostics-port", "The port of /ready and /metrics, 0 for any free one [default: 5680]")
]

DpTlsOption = Annotated[bool | None, _flag("--dp-tls/--no-dp-tls", "TLS towards the Envoys [default: dp-tls]")]

DpTlsCertOption = Annotated[str | None, _flag("--dp-tls-cert", "Its certificate, PEM [default: made at first start]")]

DpTlsKeyOption = Annotated[str | None, _flag("--dp-tls-key", "The key of the certificate, PEM.")]

DpClientCaOption = Annotated[
    str | None, _flag("--dp-client-ca", "Serve only clients with a certificate of this authority, PEM.")
]

DpAuthOption = Annotated[
    str | None,
    _flag("--dp-auth", "How Envoys prove who they are: token or none [default: none on loopback, token elsewhere]"),
]

DpTokenKeysOption = Annotated[
    str | None, _flag("--dp-token-keys", "Public keys for tokens signed elsewhere.", metavar="KID=PATH,…")
]

LocalhostIsAdminOption = Annotated[
    bool | None,
    _flag("--localhost-is-admin/--no-localhost-is-admin", "Whoever is on this machine administers [default: yes]"),
]

AnonymousAccessOption = Annotated[
    str | None,
    _flag("--anonymous-access", "Without a token, from elsewhere: none, read, or write as in Kuma [default: read]"),
]

ApiTlsPortOption = Annotated[
    int | None, _flag("--api-tls-port", "The API over TLS, 5682 in Kuma, 0 for any free port [default: none]")
]

ApiTlsCertOption = Annotated[str | None, _flag("--api-tls-cert", "Its certificate, PEM [default: the dp-server's]")]

ApiTlsKeyOption = Annotated[str | None, _flag("--api-tls-key", "The key of that certificate, PEM.")]

ApiClientCaOption = Annotated[
    str | None, _flag("--api-client-ca", "Clients of that port need a certificate of it, and are administrators.")
]

CsdsOption = Annotated[
    str | None,
    _flag("--csds", "Show all configuration on the Envoys' port: off, loopback or on [default: loopback]"),
]

InsecureOption = Annotated[
    bool | None, _flag("--insecure/--no-insecure", "Allow --no-dp-tls and --dp-auth none beyond loopback.")
]

SecretsKeyOption = Annotated[
    str | None, _flag("--secrets-key", "Keys that seal secrets at rest; better as a variable or a file.")
]

SecretsKeyFileOption = Annotated[
    str | None,
    _flag("--secrets-key-file", "A file with them [default: secrets.key in the data directory; none on PostgreSQL]"),
]

WorkersOption = Annotated[
    int | None,
    _flag("--workers", "How many processes serve on the same ports; more than one with PostgreSQL only [default: 1]"),
]

DrainOption = Annotated[
    float | None,
    _flag("--drain-s", "Over so long the proxies of a worker that is replaced (SIGHUP) are sent away [default: 10]"),
]

ProxiesSoftLimitOption = Annotated[
    int | None,
    _flag(
        "--proxies-soft-limit",
        "From so many proxies on an instance sends some away while others have room [default: 0, none]",
    ),
]

ZoneOption = Annotated[str | None, _flag("--zone", "The zone's name [default: default]")]

CreateMeshRoutingResourcesOption = Annotated[
    bool | None,
    _flag(
        "--create-mesh-routing-resources/--no-create-mesh-routing-resources",
        "New meshes have the policies allow-all and route-all [default: no]",
    ),
]

DnsServerDomainOption = Annotated[
    str | None, _flag("--dns-server-domain", "What the names of services end in [default: mesh]")
]

DnsServerCidrOption = Annotated[
    str | None, _flag("--dns-server-cidr", "Where virtual addresses come from [default: 240.0.0.0/4]")
]

IpamMeshServiceCidrOption = Annotated[
    str | None,
    _flag("--ipam-mesh-service-cidr", "Where MeshServices' addresses come from [default: 241.0.0.0/8]"),
]

IpamMeshExternalServiceCidrOption = Annotated[
    str | None,
    _flag("--ipam-mesh-external-service-cidr", "Where MeshExternalServices' come from [default: 242.0.0.0/8]"),
]

IpamMeshMultiZoneServiceCidrOption = Annotated[
    str | None,
    _flag("--ipam-mesh-multi-zone-service-cidr", "Where MeshMultiZoneServices' come from [default: 243.0.0.0/8]"),
]

DnsServerServiceVipEnabledOption = Annotated[
    bool | None,
    _flag(
        "--dns-server-service-vip-enabled/--no-dns-server-service-vip-enabled",
        "Services have names and virtual addresses [default: yes]",
    ),
]

DnsServerServiceVipPortOption = Annotated[
    int | None, _flag("--dns-server-service-vip-port", "The port of services at these [default: 80]")
]

DebounceMsOption = Annotated[float | None, _flag("--debounce-ms", "Changes within this time go together [default: 5]")]

LedsThresholdOption = Annotated[
    int | None,
    _flag("--leds-threshold", "Endpoints of a service from which on they are sent one by one [default: 0, never]"),
]

InsightFlushMsOption = Annotated[
    float | None, _flag("--insight-flush-ms", "Statuses are stored at most this often [default: 250]")
]

HdsEnabledOption = Annotated[
    bool | None,
    _flag("--hds-enabled/--no-hds-enabled", "Envoys probe workloads that have a serviceProbe [default: yes]"),
]

HdsIntervalMsOption = Annotated[
    float | None, _flag("--hds-interval-ms", "How often they report what they find [default: 100]")
]

HdsCheckIntervalMsOption = Annotated[
    float | None, _flag("--hds-check-interval-ms", "How often a workload is probed [default: 1000]")
]

HdsCheckTimeoutMsOption = Annotated[
    float | None, _flag("--hds-check-timeout-ms", "How long a probe may take [default: 2000]")
]

HdsCheckHealthyThresholdOption = Annotated[
    int | None, _flag("--hds-check-healthy-threshold", "Probes in a row that make a workload well [default: 1]")
]

HdsCheckUnhealthyThresholdOption = Annotated[
    int | None, _flag("--hds-check-unhealthy-threshold", "Failures in a row that make it unwell [default: 1]")
]

LogLevelOption = Annotated[
    str | None, _flag("--log-level", f"One of {', '.join(LOG_LEVELS)} [default: info]", metavar="LEVEL")
]
