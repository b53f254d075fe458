"""Ports of MeshServices and their kin, compiled: which inbounds serve one, and what it is called.

In: the services of a mesh as users wrote them. Out: `Backend`s, values: equal where no proxy could tell the difference.
Never: a dataplane that is looked for; the selectors are matched by an index.

A dataplane is an instance where one of its inbounds, or its name or labels, are as the service says; then each inbound
with the port's number or name serves it, whatever the tags of that one are. So it is in Kuma.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kumafast._core import TagSelector
from kumafast.matching import facts
from kumafast.resources import MeshExternalService, MeshMultiZoneService, MeshService
from kumafast.resources.defaults import ZONE_LABEL
from kumafast.resources.networking import BackendRef, Inbound
from kumafast.resources.service_port import ServicePort
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref_policy import DISPLAY_NAME_LABEL

Service: TypeAlias = MeshService | MeshExternalService | MeshMultiZoneService


class BackendPort(NamedTuple):
    """A port of a service by names: what an outbound with a `backendRef` leads to, whether or not that is there.

    Services outside of the mesh have one port; it is 0 here, however it is referred to.
    """

    kind: str
    name: str
    port: int


class Subject(NamedTuple):
    """A backend as policies see it: by its kind and name, the name of its port, its labels."""

    kind: str
    name: str
    section: str
    labels: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, str]:
        """Under which names policies are noted that may be about it."""
        return index_name(self.kind, self.name), index_name(self.kind)


def index_name(kind: str, name: str = "") -> str:
    """The name under which a policy is noted that is about a service, or about some of a kind by their labels.

    No service that a tag names has it, since `/` is not allowed there.
    """
    return f"{kind}/{name}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances: dataplanes that the selector matches, with the inbounds that have a port, by number or name."""

    selector: TagSelector
    target: int | str

    def takes(self, inbound: Inbound) -> bool:
        """Whether an inbound of an instance is the one that is meant."""
        return self.target == (inbound.port if isinstance(self.target, int) else inbound.name)


@dataclass(frozen=True, slots=True)
class Backend:
    """What a port of a service is."""

    key: BackendPort
    mesh: str
    zone: str
    display_name: str
    number: int
    """The port that clients use."""
    section: str
    protocol: str
    labels: tuple[tuple[str, str], ...]
    selections: tuple[Selection, ...]
    outside: MeshExternalService | None = None
    """Where it is outside of the mesh: then it has no selections."""

    @property
    def subject(self) -> Subject:
        """What policies are about."""
        return Subject(self.key.kind, self.key.name, self.section, self.labels)


def port_of(ref: BackendRef) -> BackendPort:
    """What a reference by name leads to."""
    return BackendPort(ref.kind, ref.name, 0 if ref.kind == MeshExternalService.type.name else ref.port)


def compile_service(service: Service, parts: Iterable[MeshService] = ()) -> Iterator[Backend]:
    """The ports of a service, each number once. `parts` are the MeshServices that a MeshMultiZoneService is made of."""
    if isinstance(service, MeshExternalService):
        yield _backend(service, ServicePort(port=service.spec.match.port), (), outside=service)
        return
    seen: set[int] = set()
    made_of = sorted(parts, key=lambda part: part.name)
    for port in service.spec.ports:
        if port.port in seen:
            continue
        seen.add(port.port)
        if isinstance(service, MeshService):
            yield _backend(service, port, tuple(_selections(service, port)))
        else:
            alike = (each for part in made_of for each in _same_port(part, port.port))
            yield _backend(service, port, tuple(dict.fromkeys(alike)))


def _same_port(part: MeshService, number: int) -> Iterator[Selection]:
    found = next((port for port in part.spec.ports if port.port == number), None)
    if found is not None:
        yield from _selections(part, found)


def _backend(
    service: Service,
    port: ServicePort,
    selections: tuple[Selection, ...],
    *,
    outside: MeshExternalService | None = None,
) -> Backend:
    labels = service.labels
    kind = service.type.name
    return Backend(
        key=BackendPort(kind, service.name, 0 if outside is not None else port.port),
        mesh=service.mesh,
        zone=labels.get(ZONE_LABEL, ""),
        display_name=labels.get(DISPLAY_NAME_LABEL) or service.name,
        number=port.port,
        section="" if outside is not None else port.section_name,
        protocol=port.protocol if outside is None else outside.spec.match.protocol,
        labels=tuple(sorted(labels.items())),
        selections=selections,
        outside=outside,
    )


def _selections(service: MeshService, port: ServicePort) -> Iterator[Selection]:
    selector = service.spec.selector
    if selector.dataplane_ref is not None:
        yield Selection(TagSelector({facts.NAME: selector.dataplane_ref.name}), port.target)
    elif selector.dataplane_tags:
        yield Selection(TagSelector(dict(selector.dataplane_tags)), port.target)
    elif selector.dataplane_labels is not None:
        wanted = selector.dataplane_labels.match_labels.items()
        yield Selection(TagSelector({facts.label(name): value for name, value in wanted}), port.target)


def noted_names(destination: tuple[tuple[str, str], ...] | BackendPort) -> tuple[str, ...]:
    """Under which names policies are noted that may be about a destination: its service, or two for a port of one."""
    if isinstance(destination, BackendPort):
        return index_name(destination.kind, destination.name), index_name(destination.kind)
    service = dict(destination).get(SERVICE_TAG)
    return (service,) if service else ()
