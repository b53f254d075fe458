"""How a control plane is set up: one frozen value, read from four places.

In: flags, `KUMAFAST_*` variables, a YAML file, defaults; the first that says something wins. Out: `Settings`.
Never: a global; whoever needs a setting is handed it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from kumafast.errors import SettingsError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `kumafast run` can be told. Each field is also a flag, a `KUMAFAST_*` variable and a key of the file."""

    store: str = ""
    """`memory`, `sqlite:PATH`; empty means SQLite in the data directory."""
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
    dp_auth: str = "none"
    insecure: bool = False
    """Allow `--no-dp-tls` and `--dp-auth none` on addresses other than loopback."""
    workers: int = 1
    zone: str = "default"
    debounce_ms: float = 5.0
    """Changes that come within this time after a first one are reconciled together."""
    leds_threshold: int = 0
    """Services with so many endpoints or more send them one by one to Envoys that speak delta (LEDS); 0 is never."""
    insight_flush_ms: float = 250.0
    """Statuses of proxies are written to the store at most this often."""
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
    def is_loopback(self) -> bool:
        """Whether the servers can be reached from this machine only."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


def load(flags: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags (None = not given), then variables, then the file, then defaults.

    Raises `SettingsError` for an unreadable file, an unknown key or a value of the wrong kind.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    in_file = _read(config) if config is not None else {}
    for field in fields(Settings):
        variable = f"KUMAFAST_{field.name.upper()}"
        if flags.get(field.name) is not None:
            values[field.name] = flags[field.name]
        elif variable in environ:
            values[field.name] = _convert(environ[variable], field.default, source=variable)
        elif field.name in in_file:
            values[field.name] = _convert(in_file[field.name], field.default, source=f"{config}: {field.name}")
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
    if settings.dp_auth not in {"none", "token"}:
        raise SettingsError(f"dp_auth must be token or none, got {settings.dp_auth!r}")
    if settings.dp_auth == "token":
        raise SettingsError("dp_auth token is not available yet; use --dp-auth none, which is the default")
    if settings.workers != 1:
        raise SettingsError("workers other than 1 are not available yet")
    if bool(settings.dp_tls_cert) != bool(settings.dp_tls_key):
        raise SettingsError("dp_tls_cert and dp_tls_key go together; give both or neither")
    if not settings.is_loopback and not settings.insecure:
        unsafe = "--no-dp-tls" if not settings.dp_tls else "--dp-auth none"
        raise SettingsError(
            f"{unsafe} lets anybody who reaches {settings.host} in; "
            "listen on 127.0.0.1, or say --insecure if you mean it"
        )
