"""What the control plane says of services beside what users wrote: their instances, addresses and names.

In: a service, the live picture. Out: fields of its `spec` and its `status`, in Kuma's 2.14 form. Never: something that
is stored: it is worked out when somebody asks, from an index, so that no dataplane that comes or goes costs a write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from kumafast.identity.backends import enabled_backend
from kumafast.matching import BackendPort
from kumafast.registry import DataplaneId
from kumafast.registry.hostnames import Generated
from kumafast.resources import Dataplane, MeshExternalService, MeshService, Resource
from kumafast.resources.defaults import ZONE_LABEL
from kumafast.resources.networking import Inbound
from kumafast.resources.service_port import ServicePort
from kumafast.resources.virtual_ip import Holder
from kumafast.rest.services import Picture

Json: TypeAlias = dict[str, Any]

_SERVICE_TAG_KIND = "ServiceTag"


class Statuses:
    """Answers for resources of types that have a status."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def of(self, resource: Resource) -> Json:
        """The fields that stand beside or in place of what a user wrote. O(the instances of the service)."""
        state = self._picture.state(resource.mesh)
        if state is None:
            return {"status": {}}
        holder = Holder(resource.type.name, resource.name)
        address, named = state.addresses.address(holder), _named(state.hostnames.generated(holder))
        if isinstance(resource, MeshExternalService):
            return {"status": {**({"vip": {"ip": address}} if address else {}), **named}}
        addressed = {**({"vips": [{"ip": address}]} if address else {}), **named}
        if isinstance(resource, MeshService):
            said = self._of_service(resource)
            return {**said, "status": {**addressed, **said["status"]}}
        zone = resource.labels.get(ZONE_LABEL, "")
        names = sorted(state.backends.parts(resource.name))
        parts = [{"name": name, "zone": zone, "mesh": resource.mesh} for name in names]
        return {"status": {**addressed, **({"meshServices": parts} if parts else {})}}

    def _of_service(self, service: MeshService) -> Json:
        instances = self.instances(service)
        statistics = self._statistics(service.spec.ports, instances)
        services = sorted({inbound.service for each in instances for inbound in each.inbounds} - {""})
        identities = [{"type": _SERVICE_TAG_KIND, "value": service} for service in services]
        spec: Json = {
            "state": "Available" if statistics.get("healthy") else "Unavailable",
            **({"identities": identities} if identities or service.spec.identities else {}),
        }
        tls = "Ready" if self._is_secured(service.mesh, instances) else "NotReady"
        return {"spec": spec, "status": {"tls": {"status": tls}, "dataplaneProxies": statistics}}

    def instances(self, service: MeshService) -> list[Dataplane]:
        """The dataplanes that a service selects. O(those)."""
        if not service.spec.ports:
            return []
        port = BackendPort(service.type.name, service.name, service.spec.ports[0].port)
        return list(self._picture.providers(service.mesh, port))

    def _statistics(self, ports: Sequence[ServicePort], instances: Sequence[Dataplane]) -> Json:
        counts = {
            "connected": sum(self._picture.is_online(DataplaneId(each.mesh, each.name)) for each in instances),
            "healthy": sum(all(_is_ready(each.inbounds, port) for port in ports) for each in instances),
            "total": len(instances),
        }
        return {name: count for name, count in counts.items() if count}

    def _is_secured(self, mesh: str, instances: Sequence[Dataplane]) -> bool:
        view = self._picture.mesh(mesh)
        if view is None or view.mesh is None or enabled_backend(view.mesh) is None:
            return False
        return all(self._picture.is_secured(DataplaneId(each.mesh, each.name)) for each in instances)


def _is_ready(inbounds: Sequence[Inbound], port: ServicePort) -> bool:
    """Whether an instance takes what comes for a port."""
    return any(
        inbound.is_ready and port.target == (inbound.port if isinstance(port.target, int) else inbound.name)
        for inbound in inbounds
    )


def _named(generated: Iterable[Generated]) -> Json:
    """Host names, and what came of each generator."""
    addresses, generators = [], []
    for each in generated:
        ref = {"coreName": each.generator}
        if each.name:
            addresses.append({"hostname": each.name, "origin": "HostnameGenerator", "hostnameGeneratorRef": ref})
        generators.append({"hostnameGeneratorRef": ref, "conditions": [_condition(each)]})
    return {
        **({"addresses": addresses} if addresses else {}),
        **({"hostnameGenerators": generators} if generators else {}),
    }


def _condition(generated: Generated) -> Json:
    if generated.failure:
        said = ("False", "TemplateError", generated.failure)
    elif generated.owner:
        said = ("False", "Collision", f"Hostname collision with {generated.owner.kind}: {generated.owner.name}")
    else:
        said = ("True", "Generated", "")
    return {"type": "Generated", **dict(zip(("status", "reason", "message"), said, strict=True))}


def merged(content: Mapping[str, Any], said: Mapping[str, Any]) -> Json:
    """A document with what the control plane says, whatever a user wrote there."""
    return {**content, **said, "spec": {**content.get("spec", {}), **said.get("spec", {})}}
