"""How a control plane is set up: one frozen value, read from four places.

In: flags, `KUMAFAST_*` variables, a YAML file, defaults; the first that says something wins. Out: `Settings`.
Never: a global; whoever needs a setting is handed it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from kumafast.errors import SettingsError

_RANGES = (
    "dns_server_cidr",
    "ipam_mesh_service_cidr",
    "ipam_mesh_external_service_cidr",
    "ipam_mesh_multi_zone_service_cidr",
)
_HDS_NUMBERS = (
    "hds_interval_ms",
    "hds_check_interval_ms",
    "hds_check_timeout_ms",
    "hds_check_healthy_threshold",
    "hds_check_unhealthy_threshold",
)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# In a URL: before the last @ of its first part, or in its query.
_PASSWORD = re.compile(r"(^[a-z]+://[^:/@]*:)[^/]*(?=@)|((?<=[?&])(?:ssl)?password=)[^&]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `kumafast run` can be told. Each field is also a flag, a `KUMAFAST_*` variable and a key of the file."""

    store: str = ""
    """`memory`, `sqlite:PATH`, `postgres://…`; empty means SQLite in the data directory."""
    data_dir: str = ""
    """Where the embedded store and the dp-server's certificate live; empty means beside the store that is named, and
    where none is named the user's data directory."""
    host: str = "127.0.0.1"
    api_port: int = 5681
    dp_port: int = 5678
    diagnostics_port: int = 5680
    dp_tls: bool = True
    dp_tls_cert: str = ""
    dp_tls_key: str = ""
    dp_client_ca: str = ""
    """An authority, PEM; clients of the dp-server then need a certificate of it. Empty means that they need none."""
    dp_auth: str = ""
    """How proxies prove who they are: `token`, or `none`; empty means none on loopback and token elsewhere."""
    dp_token_keys: str = ""
    """Public keys for dataplane tokens that are signed elsewhere: `KID=PATH`, several separated by commas."""
    localhost_is_admin: bool = True
    """Whether requests to the API that come from this machine without a token are an administrator's."""
    anonymous_access: str = "read"
    """What requests without a token from elsewhere may do: `none`, `read`, or `write`, which is what Kuma lets them."""
    api_tls_port: int = -1
    """The port of the API over TLS, 5682 in Kuma; 0 means any free one, -1 none."""
    api_tls_cert: str = ""
    api_tls_key: str = ""
    """Its certificate and key; empty means the ones of the dp-server."""
    api_client_ca: str = ""
    """With it that port serves only clients with a certificate of that authority, and these are administrators."""
    csds: str = "loopback"
    """Where CSDS, which shows every proxy's configuration to all who reach the Envoys' port, is served there: `off`,
    `loopback` (only if nobody else reaches the port) or `on`."""
    insecure: bool = False
    """Allow `--no-dp-tls` and `--dp-auth none` on addresses other than loopback."""
    secrets_key: str = field(default="", repr=False)
    """The keys that seal secrets in the store's file: 32 bytes in base64 each, one a line; the first seals."""
    secrets_key_file: str = ""
    """A file with those keys; empty means `secrets.key` in the data directory, made when a first secret needs it."""
    workers: int = 1
    """How many processes serve on the same ports; more than one need a store that they can share."""
    drain_s: float = 10.0
    """Over so long the proxies of a worker are sent away that is replaced."""
    proxies_soft_limit: int = 0
    """From so many proxies on an instance, or worker, sends some away while others have fewer; 0 is never."""
    zone: str = "default"
    create_mesh_routing_resources: bool = False
    """Whether a new mesh has a TrafficPermission and a TrafficRoute for everything, as before Kuma 2.6."""
    dns_server_domain: str = "mesh"
    """What the names of services end in, for transparent proxies: `web.mesh`."""
    dns_server_cidr: str = "240.0.0.0/4"
    """Where the addresses of services, hosts and virtual outbounds come from."""
    dns_server_service_vip_enabled: bool = True
    """Whether services have names and addresses at all, beside those that virtual outbounds make."""
    dns_server_service_vip_port: int = 80
    """The port of a service at its address."""
    ipam_mesh_service_cidr: str = "241.0.0.0/8"
    """Where the addresses of MeshServices come from."""
    ipam_mesh_external_service_cidr: str = "242.0.0.0/8"
    """Where those of MeshExternalServices come from."""
    ipam_mesh_multi_zone_service_cidr: str = "243.0.0.0/8"
    """Where those of MeshMultiZoneServices come from."""
    debounce_ms: float = 5.0
    """Changes that come within this time after a first one are reconciled together."""
    leds_threshold: int = 0
    """Services with so many endpoints or more send them one by one to Envoys that speak delta (LEDS); 0 is never."""
    insight_flush_ms: float = 250.0
    """Statuses of proxies are written to the store at most this often."""
    hds_enabled: bool = True
    """Whether Envoys probe the workloads of inbounds with a `serviceProbe` and report what they find (HDS)."""
    hds_interval_ms: float = 100.0
    """How often an Envoy with such an inbound reports; one without does so every five seconds at most."""
    hds_check_interval_ms: float = 1000.0
    """How often a workload is probed whose `serviceProbe` does not say it."""
    hds_check_timeout_ms: float = 2000.0
    """How long such a probe may take."""
    hds_check_healthy_threshold: int = 1
    """How many probes in a row must go well for a workload to be well again."""
    hds_check_unhealthy_threshold: int = 1
    """How many in a row must fail for a workload not to be well any more."""
    log_level: str = "info"

    @property
    def data_path(self) -> Path:
        """The directory for what must outlive the process: the one given, else the store's own, else the user's."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        scheme, _, path = self.store.partition(":")
        if scheme == "sqlite" and path:
            return Path(path).expanduser().absolute().parent
        return Path(platformdirs.user_data_dir("kumafast"))

    @property
    def store_url(self) -> str:
        """The store to open, with the default filled in."""
        return self.store or f"sqlite:{self.data_path / 'kumafast.db'}"

    @property
    def is_shared(self) -> bool:
        """Whether other instances may be on the same store."""
        return self.store.startswith(("postgres:", "postgresql:"))

    def as_shown(self) -> dict[str, Any]:
        """All settings by name, for those who ask what is in force; what is secret is only said to be there."""
        shown = asdict(self)
        shown["store"] = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", self.store)
        shown["secrets_key"] = "***" if self.secrets_key else ""
        return shown

    @property
    def requires_tokens(self) -> bool:
        """Whether proxies have to show a token."""
        return self.dp_auth == "token" or (not self.dp_auth and not self.is_loopback)

    @property
    def is_loopback(self) -> bool:
        """Whether the servers can be reached from this machine only."""
        return is_loopback(self.host)

    @property
    def has_csds(self) -> bool:
        """Whether CSDS is served."""
        return self.csds == "on" or (self.csds == "loopback" and self.is_loopback)


def is_loopback(host: str) -> bool:
    """Whether what listens on an address can be reached from this machine only."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def load(flags: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags (None = not given), then variables, then the file, then defaults.

    Raises `SettingsError` for an unreadable file, an unknown key or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    in_file = _read(config) if config is not None else {}
    for each in fields(Settings):
        variable = f"KUMAFAST_{each.name.upper()}"
        if flags.get(each.name) is not None:
            values[each.name] = flags[each.name]
        elif variable in environ:
            values[each.name] = _convert(environ[variable], each.default, source=variable)
        elif each.name in in_file:
            values[each.name] = _convert(in_file[each.name], each.default, source=f"{config}: {each.name}")
    settings = Settings(**values)
    _check(settings)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must hold a mapping of settings, not a {type(document).__name__}")
    normalised = {str(key).replace("-", "_"): value for key, value in document.items()}
    unknown = sorted(normalised.keys() - {field.name for field in fields(Settings)})
    if unknown:
        raise SettingsError(f"{path}: unknown setting {unknown[0]!r}; see `kumafast run --help` for those there are")
    return normalised


def _convert(value: Any, default: Any, *, source: str) -> Any:
    text = str(value).strip()
    if isinstance(default, bool):
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise SettingsError(f"{source}: expected true or false, got {text!r}")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise SettingsError(f"{source}: expected a number, got {text!r}") from None
    return text


def _check(settings: Settings) -> None:
    for name in ("api_port", "dp_port", "diagnostics_port"):
        port = getattr(settings, name)
        if not 0 <= port <= 65535:
            raise SettingsError(f"{name} must be in the range [0, 65535], got {port}; 0 means any free port")
    if settings.leds_threshold < 0:
        raise SettingsError(f"leds_threshold must be 0 or more, got {settings.leds_threshold}; 0 means never")
    for name in _HDS_NUMBERS:
        if getattr(settings, name) < 1:
            raise SettingsError(f"{name} must be at least 1, got {getattr(settings, name)}")
    if settings.dp_auth not in {"", "none", "token"}:
        raise SettingsError(f"dp_auth must be token or none, got {settings.dp_auth!r}")
    if settings.anonymous_access not in {"none", "read", "write"}:
        raise SettingsError(f"anonymous_access must be none, read or write, got {settings.anonymous_access!r}")
    if not -1 <= settings.api_tls_port <= 65535:
        raise SettingsError(f"api_tls_port must be in the range [-1, 65535], got {settings.api_tls_port}; -1 is none")
    if bool(settings.api_tls_cert) != bool(settings.api_tls_key):
        raise SettingsError("api_tls_cert and api_tls_key go together; give both or neither")
    if settings.api_client_ca and settings.api_tls_port < 0:
        raise SettingsError("api_client_ca is for the API over TLS, which has no port; give one with --api-tls-port")
    if settings.csds not in {"off", "loopback", "on"}:
        raise SettingsError(f"csds must be off, loopback or on, got {settings.csds!r}")
    _check_names(settings)
    _check_workers(settings)
    if settings.secrets_key and settings.secrets_key_file:
        raise SettingsError("secrets_key and secrets_key_file exclude each other; a file may hold several keys")
    if bool(settings.dp_tls_cert) != bool(settings.dp_tls_key):
        raise SettingsError("dp_tls_cert and dp_tls_key go together; give both or neither")
    if settings.dp_client_ca and not settings.dp_tls:
        raise SettingsError("dp_client_ca is about certificates of TLS; give it without --no-dp-tls, or leave it out")
    if not settings.is_loopback and not settings.insecure:
        for flag, is_unsafe in (("--no-dp-tls", not settings.dp_tls), ("--dp-auth none", not settings.requires_tokens)):
            if is_unsafe:
                raise SettingsError(
                    f"{flag} lets anybody who reaches {settings.host} in; "
                    "listen on 127.0.0.1, or say --insecure if you mean it"
                )


def _check_workers(settings: Settings) -> None:
    if settings.workers < 1:
        raise SettingsError(f"workers must be 1 or more, got {settings.workers}")
    if settings.proxies_soft_limit < 0:
        limit = settings.proxies_soft_limit
        raise SettingsError(f"proxies_soft_limit must be 0 or more, got {limit}; 0 means none")
    if not 0 <= settings.drain_s <= 3600:
        raise SettingsError(f"drain_s must be in the range [0, 3600], got {settings.drain_s:g}")
    if settings.workers > 1 and not settings.is_shared:
        raise SettingsError(
            f"{settings.workers} workers need a store that they can share, --store postgres://…; memory and SQLite are "
            "one process's, which has all that is stored in its memory and writes it alone"
        )


def _check_names(settings: Settings) -> None:
    for name in _RANGES:
        try:
            ip_network(getattr(settings, name))
        except ValueError as error:
            raise SettingsError(f"{name} must be a range of addresses: {error}") from None
    if settings.dns_server_domain.startswith("."):
        raise SettingsError(f"dns_server_domain must not start with a dot, got {settings.dns_server_domain!r}")
    if not 1 <= settings.dns_server_service_vip_port <= 65535:
        port = settings.dns_server_service_vip_port
        raise SettingsError(f"dns_server_service_vip_port must be in the range [1, 65535], got {port}")
