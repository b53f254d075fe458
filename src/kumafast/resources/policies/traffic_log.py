"""TrafficLog: which connections leave a line, in which of the mesh's logs. The form with sources and destinations.

In: documents in Kuma's 2.14 form. Out: `TrafficLog`, frozen, and the rules that it breaks. Never: what Envoy makes of
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.connection_policy import ConnectionPolicy, check_service_destinations, check_sources
from kumafast.resources.fields import Text
from kumafast.resources.mesh import Mesh
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.telemetry import TCP, LoggingBackend


class Conf(Frozen):
    """The name of a logging backend of the mesh; without one it is the default backend."""

    backend: Text = ""


class Log(Frozen):
    """What a TrafficLog comes to in its mesh: the backend itself, or none."""

    backend: LoggingBackend | None = None


class TrafficLog(ConnectionPolicy):
    """Logs connections from some dataplanes to some services; `pass_through` is what is no service of the mesh."""

    type: ClassVar[ResourceType] = ResourceType(
        name="TrafficLog",
        scope=Scope.MESH,
        path="traffic-logs",
        singular="Traffic Log",
        plural="Traffic Logs",
        is_in_federation=True,
        policy=PolicyTraits(order=600, successor="MeshAccessLog", mesh_fields=("logging",), is_by_service=True),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The name of the backend."""
        return self.conf

    def settings_in(self, mesh: Mesh | None) -> Log:
        """The backend itself."""
        logging = None if mesh is None else mesh.logging
        name = "" if self.conf is None else self.conf.backend
        return Log(backend=None if logging is None else logging.backend(name))

    def remarks_in(self, mesh: Mesh) -> Iterator[str]:
        """That nothing is logged: there is no such backend, or proxies need help to reach it."""
        name = "" if self.conf is None else self.conf.backend
        backend = self.settings_in(mesh).backend
        if backend is None:
            which = f"the mesh has no logging backend {name}" if name else "the mesh has no default logging backend"
            yield f"conf.backend: {which}, so nothing is logged"
        elif backend.type == TCP:
            yield (
                f"conf.backend: {backend.name} is of the type tcp, and Envoy by itself writes to files only; lines are "
                "sent by kuma-dp, and proxies without it log nothing"
            )

    def violations(self) -> Iterator[Violation]:
        """Every rule of logs that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
