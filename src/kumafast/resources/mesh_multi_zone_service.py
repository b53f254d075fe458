"""A service that several MeshServices are together, those of other zones among them.

In: documents in Kuma's 2.14 form. Out: `MeshMultiZoneService`, frozen, and the rules that it breaks. Never: which
MeshServices it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.label_selector import LabelSelector
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.service_port import ServicePort, check_ports
from kumafast.resources.tags import PROTOCOLS


class MultiZoneSelector(Frozen):
    """Which MeshServices it is made of."""

    mesh_service: LabelSelector = LabelSelector()


class MultiZoneSpec(Frozen):
    """What a user says of it."""

    selector: MultiZoneSelector = MultiZoneSelector()
    ports: tuple[ServicePort, ...] = ()


class MeshMultiZoneService(Resource):
    """A service made of MeshServices by their labels.

    >>> spec = {"selector": {"meshService": {"matchLabels": {"app": "web"}}}, "ports": [{"port": 80}]}
    >>> list(MeshMultiZoneService(name="web", mesh="default", spec=spec).violations())
    []
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshMultiZoneService",
        scope=Scope.MESH,
        path="meshmultizoneservices",
        singular="Mesh Multi Zone Service",
        plural="Mesh Multi Zone Services",
        short_name="mzsvc",
        is_in_federation=True,
        has_status=True,
    )

    spec: MultiZoneSpec = MultiZoneSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of such services that this one breaks, in the order of Kuma's checks."""
        if not self.spec.selector.mesh_service.match_labels:
            yield Violation("spec.selector.meshService.matchLabels", "cannot be empty")
        if not self.spec.ports:
            yield Violation("spec.ports", "cannot be empty")
        for i, port in enumerate(self.spec.ports):
            if port.name == "":
                yield Violation(f"spec.ports[{i}].name", "must not be empty")
            if port.protocol not in PROTOCOLS:
                yield Violation(f"spec.ports[{i}].appProtocol", f"must be one of [{', '.join(PROTOCOLS)}]")
        yield from check_ports("spec.ports", self.spec.ports)
