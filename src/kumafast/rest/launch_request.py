"""What a launcher says of its dataplane and its host.

In: the body of `POST /bootstrap`, as kuma-dp writes it. Out: `LaunchRequest`. Never: the dataplane itself, which comes
as text in one field and is read by whoever registers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from kumafast.errors import InvalidResourceError, Violation

_DELTA: Final = "delta"
FEATURE_SOTW: Final = "feature-sotw"
"""In `features`: the launcher asks for state-of-the-world xDS. `xdsTransport` says the same; both are ours."""

# The token becomes a header of each stream, where anything else would break the connection.
_HEADER_VALUE: Final = r"^[\x21-\x7e]*$"

Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", alias_generator=to_camel)


class _KumaDpVersion(_Part):
    version: str = ""
    git_tag: str = ""
    git_commit: str = ""
    build_date: str = ""


class _EnvoyVersion(_Part):
    version: str = ""
    build: str = ""


class _Versions(_Part):
    kuma_dp: _KumaDpVersion = _KumaDpVersion()
    envoy: _EnvoyVersion = _EnvoyVersion()


class _MetricsResources(_Part):
    cert_path: str = ""
    key_path: str = ""


class LaunchRequest(_Part):
    """The fields that kumafast uses. A port of 0 is none."""

    mesh: Name = "default"
    name: Name
    proxy_type: Literal["dataplane", ""] = "dataplane"
    dataplane_resource: str = ""
    dataplane_token: Annotated[str, Field(pattern=_HEADER_VALUE)] = ""
    version: _Versions = _Versions()
    ca_cert: str = ""
    dynamic_metadata: dict[str, str] = {}
    dns_port: Port = 0
    readiness_port: Port = 0
    features: Annotated[tuple[str, ...], Field(strict=False)] = ()
    workdir: str = ""
    metrics_resources: _MetricsResources = _MetricsResources()
    system_ca_path: str = ""
    ipv6_enabled: bool = True
    xds_transport: Literal["delta", "sotw"] = _DELTA

    @property
    def uses_delta(self) -> bool:
        """Whether the Envoy shall speak delta xDS; it does unless the launcher asks otherwise."""
        return self.xds_transport == _DELTA and FEATURE_SOTW not in self.features

    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Of the launcher and of Envoy, in the form of the node's metadata."""
        return self.version.model_dump(by_alias=True)

    def metadata(self) -> Mapping[str, object]:
        """What is shown of the host in the node's metadata."""
        dynamic = {"dynamicMetadata": dict(self.dynamic_metadata)} if self.dynamic_metadata else {}
        return {
            "metricsCertPath": self.metrics_resources.cert_path,
            "metricsKeyPath": self.metrics_resources.key_path,
            "systemCaPath": self.system_ca_path,
            **dynamic,
        }


def read_launch_request(document: Mapping[str, Any]) -> LaunchRequest:
    """The request in a JSON object. Raises `InvalidResourceError` with every field that cannot be used."""
    try:
        # Go writes null for what is not set.
        return LaunchRequest.model_validate(_without_nulls(document))
    except ValidationError as error:
        violations = [Violation(_path(entry["loc"]), entry["msg"]) for entry in error.errors(include_url=False)]
        raise InvalidResourceError(violations) from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
