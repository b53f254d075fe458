"""MeshPassthrough: which traffic to what is not in the mesh goes out of transparent proxies.

In: documents in Kuma's 2.14 form. Out: `MeshPassthrough`, frozen, and the rules that it breaks.
Never: a look at the DNS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.fields import Text, Whole
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import DATAPLANE, MESH, MESH_SUBSET, check_target_ref
from kumafast.resources.target_ref_policy import ProxySpec, TargetRefPolicy
from kumafast.resources.validation import is_domain, is_ip

ALL = "All"
MATCHED = "Matched"

DOMAIN = "Domain"
REQUESTS = ("grpc", "http", "http2")
"""The protocols whose requests are read; of these one port speaks one."""

_MODES = ("All", "Matched", "None")
_PROTOCOLS = ("tcp", "tls", "grpc", "http", "http2")
_PORT_MAX = 65_535
_PARTIAL = re.compile(r"\*[^.]+")


class Match(Frozen):
    """Traffic to a domain, an address or a network, on one port or all."""

    type: Text = ""
    value: Text = ""
    port: Whole | None = None
    protocol: Text = ""

    @property
    def is_wildcard(self) -> bool:
        """Whether it is for many domains."""
        return self.type == DOMAIN and self.value.startswith("*")


class Conf(Frozen):
    """What goes out: all, what matches, or nothing."""

    passthrough_mode: Text = ""
    append_match: tuple[Match, ...] = ()


class MeshPassthrough(TargetRefPolicy):
    """What goes out of some proxies to what is not in the mesh."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshPassthrough",
        scope=Scope.MESH,
        path="meshpassthroughs",
        singular="Mesh Passthrough",
        plural="Mesh Passthroughs",
        short_name="mp",
        is_in_federation=True,
        policy=PolicyTraits(order=500, is_target_ref=True),
    )

    spec: ProxySpec[Conf] = ProxySpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of these policies that this one breaks, in the order of Kuma's checks."""
        top = self.spec.target_ref
        if top is not None:
            yield from check_target_ref("spec.targetRef", top, kinds=(MESH, MESH_SUBSET, DATAPLANE))
            if top.kind == MESH and set(top.proxy_types) != {"Sidecar"}:
                message = "proxyTypes needs to be set, currently only Sidecar is supported"
                yield Violation("spec.targetRef.proxyTypes", message)
        conf = self.spec.default or Conf()
        if conf.passthrough_mode and conf.passthrough_mode not in _MODES:
            yield _not_one_of("spec.default", "passthroughMode", _MODES)
        spoken: dict[int | None, str] = {}
        seen: set[tuple[int, str, str]] = set()
        for i, match in enumerate(conf.append_match):
            yield from _check_match(f"spec.default.appendMatch[{i}]", match, spoken, seen)


def _check_match(
    path: str, match: Match, spoken: dict[int | None, str], seen: set[tuple[int, str, str]]
) -> Iterator[Violation]:
    """`spoken` and `seen`: the protocols by port, and what there was on a port, of the matches before this one."""
    if match.port is not None and not 0 < match.port <= _PORT_MAX:
        yield Violation(f"{path}.port", "port must be a valid (1-65535)")
    # Envoy cannot tell these apart before it has read a request.
    if match.protocol in REQUESTS and spoken.setdefault(match.port, match.protocol) != match.protocol:
        message = (
            "using the same port in multiple matches requires the same protocol for the following protocols: "
            f"[{' '.join(REQUESTS)}]"
        )
        yield Violation(f"{path}.port", message)
    if match.port is not None:
        key = (match.port, match.protocol, match.value)
        if key in seen:
            yield Violation(f"{path}.value", f"value {match.value} is already defiend for this port and protocol")
        seen.add(key)
    if match.protocol not in _PROTOCOLS:
        yield _not_one_of(path, "protocol", _PROTOCOLS)
    if match.type == DOMAIN:
        yield from _check_domain(path, match)
    elif match.type == "IP":
        if not is_ip(match.value):
            yield Violation(f"{path}.value", "provided IP has incorrect value")
    elif match.type == "CIDR":
        if not _is_network(match.value):
            yield Violation(f"{path}.value", "provided CIDR has incorrect value")
    else:
        message = f"provided type {match.type} is not supported, one of Domain, IP, or CIDR is supported"
        yield Violation(f"{path}.type", message)


def _check_domain(path: str, match: Match) -> Iterator[Violation]:
    if match.protocol == "tcp":
        yield Violation(f"{path}.protocol", "protocol tcp is not supported for a domain")
    if _PARTIAL.match(match.value):
        message = "provided DNS has incorrect value, partial wildcard is currently not supported"
        yield Violation(f"{path}.value", message)
    if match.port is None and match.is_wildcard and match.protocol in REQUESTS:
        yield Violation(f"{path}.port", "wildcard domains doesn't work for all ports and layer 7 protocol")
    name = match.value.removeprefix("*.")
    if not name.startswith("*") and not is_domain(name):
        yield Violation(f"{path}.value", "provided DNS has incorrect value")


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text and "%" not in text and text.rpartition("/")[2].isdigit()


def _not_one_of(path: str, name: str, allowed: tuple[str, ...]) -> Violation:
    listed = ", ".join(f'"{each}"' for each in allowed)
    return Violation(f"{path}.{name}", f'"{name}" must be one of [{listed}]')
