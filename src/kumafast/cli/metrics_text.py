"""An Envoy's metrics as its mesh publishes them: those that a MeshMetric selects, clusters of one service as one.

In: Envoy's metrics in Prometheus' text form, what the launcher was told of the sidecar. Out: the same form.
Never: metrics of workloads, which are theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Named: TypeAlias = Callable[[str], bool]

# What Kuma's dashboards show, and what tells whether a service is well: requests, their times and failures.
_BASIC_PARTS = (
    *("_rq", "rq_time", "bytes", "timeout", "health_check", "lb_healthy_panic", "error", "fail", "reset", "eject"),
    *("cx_active", "cx_connect", "cx_count", "cx_destroy", "cx_length_ms", "cx_total", "overflow", "cancelled"),
    *("max_duration_reached", "no_cluster", "no_route", "no_filter_chain", "reject", "denied", "rbac"),
    *("circuit_breakers", "ssl_handshake", "ssl_context_update_by_sds", "days_until_first_cert_expiring"),
)
_BASIC_BEGINNINGS = ("envoy_server", "envoy_control_plane", "envoy_dns_filter", "envoy_dns_cares", "kuma_dp_dns")
_BASIC_NAMES = frozenset(f"envoy_cluster_membership_{each}" for each in ("degraded", "healthy", "total"))

# Clusters and listeners that are there for the proxy's own sake, as their statistics call them.
_INTERNAL = re.compile(
    r"(envoy_cluster_name|envoy_http_conn_manager_prefix|envoy_listener_address)="
    r'"(_kuma|kuma_|system_|meshtrace_|tracing_|meshaccesslog_|(ads_cluster|access_log_sink)")'
)
# A cluster that tags or a route choose of a service has a digest of them behind its name.
_CLUSTER = re.compile(r'envoy_cluster_name="([^"]*?)(-[0-9a-f]{16})?"')
_HTTP = re.compile(r'envoy_http_conn_manager_prefix="([^"]*)"')
_OWN_CLUSTERS = ("ads_cluster", "access_log_sink", "kuma_envoy_admin", "_kuma_", "kuma_readiness", "system_")
_OWN_SERVERS = ("admin", "kuma_envoy_admin", "_kuma_", "system_")
_MARK = ',kuma_io_mesh_traffic="true"}'


@dataclass(frozen=True, slots=True)
class Selection:
    """Which metrics of a sidecar are published."""

    is_wanted: Named
    """By the name of a metric."""
    hides_internal: bool = True
    """Whether what is about the proxy's own clusters and listeners is left out."""
    includes_unused: bool = False
    """Whether those that never moved are published too."""

    @classmethod
    def of(cls, sidecar: Mapping[str, Any] | None) -> Selection:
        """What the launcher was told of the sidecar; nothing is the basic profile."""
        told = sidecar or {}
        profiles = told.get("profiles") or {}
        names = [each["name"] for each in profiles.get("appendProfiles") or ()] or ["Basic"]
        # Each profile has all that those after it have.
        widest = next(each for each in ("All", "Basic", "None") if each in (*names, "None"))
        excluded = [_named(each) for each in profiles.get("exclude") or ()]
        included = [_named(each) for each in profiles.get("include") or ()]

        def is_wanted(name: str) -> bool:
            if any(each(name) for each in included):
                return True
            return _is_in_profile(widest, name) and not any(each(name) for each in excluded)

        return cls(is_wanted, hides_internal=widest == "Basic", includes_unused=bool(told.get("includeUnused")))


@dataclass(slots=True)
class _Family:
    """A metric with its comments and its samples: values by name and labels, in the order of their first sight."""

    name: str = ""
    comments: list[str] = field(default_factory=list)
    samples: dict[str, float | str] = field(default_factory=dict)

    def add(self, key: str, value: str) -> None:
        before = self.samples.get(key)
        # What nobody adds to stays as it was written.
        self.samples[key] = value if before is None else float(before) + float(value)


def published(text: str, selection: Selection) -> str:
    """The metrics that are wanted, with clusters of one service added up. O(length of the text).

    >>> text = '# TYPE a_rq counter\\na_rq{envoy_cluster_name="b-0123456789abcdef"} 1\\na_rq{envoy_cluster_name="b"} 2'
    >>> print(published(text, Selection.of(None)))
    # TYPE a_rq counter
    a_rq{envoy_cluster_name="b",kuma_io_mesh_traffic="true"} 3
    <BLANKLINE>
    """
    lines: list[str] = []
    for family in _families(text):
        if not selection.is_wanted(family.name):
            continue
        kept = _Family()
        for key, value in family.samples.items():
            if not (selection.hides_internal and _INTERNAL.search(key)):
                kept.add(_marked(key), str(value))
        if kept.samples:
            lines += family.comments
            lines += (f"{key} {_shown(value)}" for key, value in kept.samples.items())
    return "".join(f"{line}\n" for line in lines)


def _families(text: str) -> Iterator[_Family]:
    family = _Family()
    for line in text.splitlines():
        if line.startswith(("# TYPE ", "# HELP ")):
            name = line.split(" ", 3)[2]
            if name != family.name:
                if family.samples:
                    yield family
                family = _Family(name)
            family.comments.append(line)
        elif line and not line.startswith("#"):
            key, _, value = line.rpartition(" ")
            family.add(key, value)
    if family.samples:
        yield family


def _marked(key: str) -> str:
    """A sample's name and labels: with the cluster by its service, and marked where it is the mesh's traffic."""
    cluster = _CLUSTER.search(key)
    if cluster is not None:
        named = f'{key[: cluster.start()]}envoy_cluster_name="{cluster[1]}"{key[cluster.end() :]}'
        return named if cluster[1].startswith(_OWN_CLUSTERS) else named.removesuffix("}") + _MARK
    http = _HTTP.search(key)
    return key if http is None or http[1].startswith(_OWN_SERVERS) else key.removesuffix("}") + _MARK


def _shown(value: float | str) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_in_profile(profile: str, name: str) -> bool:
    if profile == "Basic":
        is_basic = name in _BASIC_NAMES or name.startswith(_BASIC_BEGINNINGS)
        return is_basic or any(each in name for each in _BASIC_PARTS)
    return profile == "All"


def _named(selector: Mapping[str, str]) -> Named:
    """Whether a name is one that a selector means."""
    match = selector["match"]
    if selector["type"] == "Regex":
        compiled = re.compile(match)
        return lambda name: compiled.search(name) is not None
    if selector["type"] == "Prefix":
        return lambda name: name.startswith(match)
    return (lambda name: match in name) if selector["type"] == "Contains" else (lambda name: name == match)
