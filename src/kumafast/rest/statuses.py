"""What the control plane says of services beside what users wrote: their instances, whom these show that they are.

In: a service, the live picture. Out: fields of its `spec` and its `status`, in Kuma's 2.14 form. Never: something that
is stored: it is worked out when somebody asks, from an index, so that no dataplane that comes or goes costs a write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from kumafast.identity.backends import enabled_backend
from kumafast.matching import BackendPort
from kumafast.registry import DataplaneId
from kumafast.resources import Dataplane, MeshService, Resource
from kumafast.resources.networking import Inbound
from kumafast.resources.service_port import ServicePort
from kumafast.rest.services import Picture

Json: TypeAlias = dict[str, Any]

_SERVICE_TAG_KIND = "ServiceTag"


class Statuses:
    """Answers for resources of types that have a status."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def of(self, resource: Resource) -> Json:
        """The fields that stand beside or in place of what a user wrote. O(the instances of the service)."""
        if isinstance(resource, MeshService):
            return self._of_service(resource)
        return {"status": {}}

    def _of_service(self, service: MeshService) -> Json:
        instances = self._instances(service)
        statistics = self._statistics(service.spec.ports, instances)
        services = sorted({inbound.service for each in instances for inbound in each.inbounds} - {""})
        identities = [{"type": _SERVICE_TAG_KIND, "value": service} for service in services]
        spec: Json = {
            "state": "Available" if statistics.get("healthy") else "Unavailable",
            **({"identities": identities} if identities or service.spec.identities else {}),
        }
        tls = "Ready" if self._is_secured(service.mesh, instances) else "NotReady"
        return {"spec": spec, "status": {"tls": {"status": tls}, "dataplaneProxies": statistics}}

    def _instances(self, service: MeshService) -> list[Dataplane]:
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


def merged(content: Mapping[str, Any], said: Mapping[str, Any]) -> Json:
    """A document with what the control plane says, whatever a user wrote there."""
    return {**content, **said, "spec": {**content.get("spec", {}), **said.get("spec", {})}}
