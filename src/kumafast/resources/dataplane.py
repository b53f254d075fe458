"""A dataplane: one sidecar (or gateway), the ports it serves and the services it consumes.

In: documents in Kuma's 2.14 form, or the older ones that `aliases` knows. Out: `Dataplane`, frozen, and what it breaks.
Never: what other resources of the mesh make of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from kumafast.errors import Violation
from kumafast.resources import aliases, dataplane_rules
from kumafast.resources.networking import Gateway, Inbound, Metrics, Networking, Outbound, Probes
from kumafast.resources.resource import Resource, ResourceType, Scope
from kumafast.resources.tags import SERVICE_TAG

_UNKNOWN_SERVICE = "unknown"


class Dataplane(Resource):
    """One proxy of a mesh.

    >>> web = Dataplane(
    ...     name="web-1",
    ...     mesh="default",
    ...     networking={"address": "10.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]},
    ... )
    >>> web.inbounds[0].service, web.inbound_address(web.inbounds[0])
    ('web', '10.0.0.1')
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="Dataplane",
        scope=Scope.MESH,
        path="dataplanes",
        singular="Dataplane",
        plural="Dataplanes",
        short_name="dp",
        keeps_mesh=True,
    )
    old_names: ClassVar[tuple[bytes, ...]] = aliases.DATAPLANE_NAMES

    networking: Networking | None = None
    metrics: Metrics | None = None
    probes: Probes | None = None

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with the forms of 0.1.0 to 0.6 replaced by today's."""
        return aliases.dataplane_fields(fields)

    @property
    def inbounds(self) -> tuple[Inbound, ...]:
        """The ports it serves."""
        return () if self.networking is None else self.networking.inbound

    @property
    def outbounds(self) -> tuple[Outbound, ...]:
        """The ports that lead to others."""
        return () if self.networking is None else self.networking.outbound

    @property
    def gateway(self) -> Gateway | None:
        """What makes it a gateway; None for a sidecar."""
        return None if self.networking is None else self.networking.gateway

    @property
    def address(self) -> str:
        """Where the proxy listens."""
        return "" if self.networking is None else self.networking.address

    @property
    def advertised_address(self) -> str:
        """Where others reach the proxy."""
        return "" if self.networking is None else self.networking.advertised_address or self.networking.address

    @property
    def identifying_service(self) -> str:
        """The one service by which it is known: the first by name of those that it has, `unknown` without any."""
        gateway = self.gateway
        named = {inbound.tags.get(SERVICE_TAG, "") for inbound in self.inbounds}
        if gateway is not None:
            named.add(gateway.tags.get(SERVICE_TAG, ""))
        return min(named - {""}, default=_UNKNOWN_SERVICE)

    def inbound_address(self, inbound: Inbound) -> str:
        """Where the proxy listens for an inbound."""
        return inbound.address or self.address

    def inbound_service_address(self, inbound: Inbound) -> str:
        """Where the workload behind an inbound listens."""
        return inbound.effective_service_address

    def inbound_service_port(self, inbound: Inbound) -> int:
        """The workload's own port behind an inbound."""
        return inbound.effective_service_port

    def outbound_address(self, outbound: Outbound) -> str:
        """Where the proxy listens for the workload's requests to an outbound."""
        return outbound.effective_address

    def violations(self) -> Iterator[Violation]:
        """Every rule of dataplanes that this one breaks, in the order of Kuma's checks."""
        return dataplane_rules.check(self.networking, metrics=self.metrics, probes=self.probes)
