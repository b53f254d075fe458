"""MeshGateway: the ports on which built-in gateways take what comes from outside of the mesh.

In: documents in Kuma's 2.14 form. Out: `MeshGateway`, frozen, and the rules that it breaks. Never: where requests go
from there, which routes say.

Listeners for other meshes (`crossMesh`) are refused: they would be left open to everybody here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Literal

from kumafast.errors import Violation
from kumafast.resources.connection_policy import Selector, check_sources
from kumafast.resources.data_source import DataSource
from kumafast.resources.fields import Count, Flag, FrozenMap, Loose, Tags, Text, Whole
from kumafast.resources.hostnames import ANY, check_hostname
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.tags import EXTERNAL_SERVICE_TAG, PROTOCOL_TAG, SERVICE_TAG, ZONE_TAG
from kumafast.resources.validation import check_port, check_selector_entries, key_of

TCP: Final = "TCP"
TLS: Final = "TLS"
HTTP: Final = "HTTP"
HTTPS: Final = "HTTPS"
TERMINATE: Final = "TERMINATE"
PASSTHROUGH: Final = "PASSTHROUGH"

_CERTIFICATES_MAX = 2
_EMPTY = "cannot be empty"
# What a dataplane has, and no listener can be told by.
_RESERVED_TAGS = frozenset({EXTERNAL_SERVICE_TAG, PROTOCOL_TAG, SERVICE_TAG, ZONE_TAG})


class TlsConf(Frozen):
    """What becomes of TLS: it ends at the gateway, which shows the certificates, or goes on as it came."""

    mode: Literal["NONE", "TERMINATE", "PASSTHROUGH"] = "NONE"
    certificates: tuple[DataSource, ...] = ()
    """Each a certificate, others of its chain, and its key, all in PEM."""
    options: Loose | None = None


class ListenerLimits(Frozen):
    """Limits of a port."""

    connection_limit: Count = 0


class Listener(Frozen):
    """A port, or the part of it that is for some host names."""

    hostname: Text = ""
    port: Whole = 0
    protocol: Literal["NONE", "TCP", "TLS", "HTTP", "HTTPS"] = "NONE"
    tls: TlsConf | None = None
    tags: Tags = FrozenMap()
    cross_mesh: Flag = False
    resources: ListenerLimits | None = None

    @property
    def effective_hostname(self) -> str:
        """The host names that it is for, `*` for all."""
        return self.hostname or ANY

    @property
    def connection_limit(self) -> int:
        """How many connections its port may have at a time; 0 is no limit."""
        return 0 if self.resources is None else self.resources.connection_limit

    @property
    def is_http(self) -> bool:
        """Whether it reads requests."""
        return self.protocol in (HTTP, HTTPS)


class Conf(Frozen):
    """The ports of a gateway."""

    listeners: tuple[Listener, ...] = ()


class MeshGateway(Resource):
    """What the built-in gateways listen on that it selects.

    >>> edge = MeshGateway(
    ...     name="edge",
    ...     mesh="default",
    ...     selectors=[{"match": {"kuma.io/service": "edge"}}],
    ...     conf={"listeners": [{"port": 80, "protocol": "HTTP"}]},
    ... )
    >>> edge.listeners[0].effective_hostname
    '*'
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshGateway",
        scope=Scope.MESH,
        path="meshgateways",
        singular="Mesh Gateway",
        plural="Mesh Gateways",
        short_name="mgw",
        is_in_federation=True,
    )

    selectors: tuple[Selector, ...] = ()
    tags: Tags = FrozenMap()
    conf: Conf | None = None

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Its listeners in their order."""
        return () if self.conf is None else self.conf.listeners

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets that its certificates are kept in."""
        confs = (listener.tls for listener in self.listeners)
        sources = (source for conf in confs if conf is not None for source in conf.certificates)
        return frozenset(source.secret for source in sources if source.secret)

    def violations(self) -> Iterator[Violation]:
        """Every rule of gateways that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("selectors", self.selectors)
        yield from _check_tags("tags", self.tags)
        if self.conf is None:
            yield Violation("conf", _EMPTY)
            return
        if not self.conf.listeners:
            yield Violation("conf.listeners", _EMPTY)
        for i, listener in enumerate(self.conf.listeners):
            yield from _check_listener(f"conf.listeners[{i}]", listener)
        yield from _check_shared_ports("conf.listeners", self.conf.listeners)


def _check_tags(path: str, tags: Mapping[str, str]) -> Iterator[Violation]:
    yield from check_selector_entries(path, tags)
    for name in sorted(_RESERVED_TAGS & tags.keys()):
        yield Violation(key_of(path, name), f'tag name must not be "{name}"')


def _check_listener(path: str, listener: Listener) -> Iterator[Violation]:
    yield from check_hostname(f"{path}.hostname", listener.hostname)
    yield from check_port(f"{path}.port", listener.port)
    if listener.protocol == "NONE":
        yield Violation(f"{path}.protocol", _EMPTY)
    elif listener.protocol == HTTPS and listener.cross_mesh:
        yield Violation(f"{path}.protocol", "protocol is not supported with crossMesh")
    elif listener.protocol == HTTPS and listener.tls is None:
        yield Violation(f"{path}.tls", _EMPTY)
    elif listener.protocol == HTTPS and listener.tls is not None and listener.tls.mode == PASSTHROUGH:
        yield Violation(f"{path}.tls.mode", "mode is not supported on HTTPS listeners")
    if listener.cross_mesh:
        yield Violation(f"{path}.crossMesh", "listeners for other meshes are not supported")
    if listener.tls is not None:
        yield from _check_tls(f"{path}.tls", listener.tls, cross_mesh=listener.cross_mesh)
    yield from _check_tags(f"{path}.tags", listener.tags)


def _check_tls(path: str, tls: TlsConf, *, cross_mesh: bool) -> Iterator[Violation]:
    if cross_mesh:
        if tls.mode != "NONE" or tls.certificates:
            yield Violation(path, "must be empty with crossMesh")
    elif tls.mode == "NONE":
        yield Violation(f"{path}.mode", _EMPTY)
    elif tls.mode == TERMINATE:
        if not tls.certificates:
            yield Violation(f"{path}.certificates", "cannot be empty in TLS termination mode")
        elif len(tls.certificates) > _CERTIFICATES_MAX:
            yield Violation(f"{path}.certificates", f"cannot have more than {_CERTIFICATES_MAX} certificates")


def _check_shared_ports(path: str, listeners: Sequence[Listener]) -> Iterator[Violation]:
    """Listeners of one port differ in their host names alone."""
    ports: dict[int, list[int]] = defaultdict(list)
    for position, listener in enumerate(listeners):
        ports[listener.port].append(position)
    for positions in ports.values():
        if len({listeners[each].protocol for each in positions}) > 1:
            yield from _at(path, positions, "protocol conflicts with other listeners on this port")
    for positions in ports.values():
        hosts: dict[str, list[int]] = defaultdict(list)
        for each in positions:
            hosts[listeners[each].effective_hostname].append(each)
        for alike in hosts.values():
            if len(alike) > 1:
                yield from _at(path, alike, "multiple listeners for hostname on this port")
    for positions in ports.values():
        limited = [each for each in positions if listeners[each].connection_limit]
        if len({listeners[each].connection_limit for each in limited}) > 1:
            for each in limited:
                yield Violation(f"{path}[{each}].resources.connectionLimit", "conflicting values for this port")


def _at(path: str, positions: Iterable[int], message: str) -> Iterator[Violation]:
    return (Violation(f"{path}[{position}]", message) for position in positions)
