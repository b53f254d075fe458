"""What TrafficPermission changes: which clients an inbound takes connections from.

In: the one permission that applies. Out: an effect. Never: another inbound than that which it was chosen for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kumafast.generation import rbac
from kumafast.generation.effects import Effect, Guard
from kumafast.generation.identities import client
from kumafast.generation.proxy import Tags
from kumafast.resources.policies.traffic_permission import Conf, TrafficPermission

KIND = TrafficPermission.type.name


@dataclass(frozen=True, slots=True)
class Permitted(Effect):
    """Only clients with all tags of one of the sources may connect."""

    name: str
    sources: tuple[Tags, ...]

    def inbound_guard(self, mesh: str) -> Guard:
        """Connections are judged, also those that carry requests."""
        return rbac.allowing(self.name, [client(mesh, tags) for tags in self.sources], judges_requests=False)


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect:
    """Whom an inbound takes connections from."""
    written = Conf.model_validate(conf)
    return Permitted(written.name, tuple(tuple(source.items()) for source in written.sources))
