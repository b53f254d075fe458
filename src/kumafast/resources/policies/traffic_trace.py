"""TrafficTrace: which proxies report the requests that they handle, to which of the mesh's collectors of traces.

In: documents in Kuma's 2.14 form. Out: `TrafficTrace`, frozen, and the rules that it breaks. Never: what Envoy makes of
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.connection_policy import check_selectors
from kumafast.resources.dataplane_policy import DataplanePolicy
from kumafast.resources.fields import Text
from kumafast.resources.mesh import Mesh
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.telemetry import TracingBackend


class Conf(Frozen):
    """The name of a tracing backend of the mesh; without one it is the default backend."""

    backend: Text = ""


class Trace(Frozen):
    """What a TrafficTrace comes to in its mesh: the backend itself, or none."""

    backend: TracingBackend | None = None


class TrafficTrace(DataplanePolicy):
    """Traces what some dataplanes send and take, as far as they read requests."""

    type: ClassVar[ResourceType] = ResourceType(
        name="TrafficTrace",
        scope=Scope.MESH,
        path="traffic-traces",
        singular="Traffic Trace",
        plural="Traffic Traces",
        is_in_federation=True,
        policy=PolicyTraits(order=700, successor="MeshTrace", mesh_fields=("tracing",)),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The name of the backend."""
        return self.conf

    def settings_in(self, mesh: Mesh | None) -> Trace:
        """The backend itself."""
        tracing = None if mesh is None else mesh.tracing
        name = "" if self.conf is None else self.conf.backend
        return Trace(backend=None if tracing is None else tracing.backend(name))

    def remarks_in(self, mesh: Mesh) -> Iterator[str]:
        """That nothing is traced: there is no such backend."""
        if self.settings_in(mesh).backend is None:
            name = "" if self.conf is None else self.conf.backend
            which = f"the mesh has no tracing backend {name}" if name else "the mesh has no default tracing backend"
            yield f"conf.backend: {which}, so nothing is traced"

    def violations(self) -> Iterator[Violation]:
        """Every rule of traces that this one breaks, in the order of Kuma's checks."""
        yield from check_selectors("selectors", self.selectors)
