"""A service of the mesh: which dataplanes are its instances, and by which ports clients reach them.

In: documents in Kuma's 2.14 form. Out: `MeshService`, frozen, and the rules that it breaks. Never: its instances, or
its `status`, which the control plane says and nobody writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.fields import Tags, Text
from kumafast.resources.label_selector import LabelSelector
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.service_port import ServicePort, check_ports

NAME_LENGTH_MAX = 63
"""The name is a label of host names and of what clients call the service in TLS."""


class DataplaneRef(Frozen):
    """One dataplane by its name."""

    name: Text = ""


class ServiceSelector(Frozen):
    """Whose instances: those of dataplanes by the tags of one of their inbounds, by name or by labels; at most one."""

    dataplane_tags: Tags | None = None
    dataplane_ref: DataplaneRef | None = None
    dataplane_labels: LabelSelector | None = None


class Identity(Frozen):
    """Whom instances show that they are: a service (`ServiceTag`) or a SPIFFE ID (`SpiffeID`)."""

    type: Text = ""
    value: Text = ""


class MeshServiceSpec(Frozen):
    """What a user says of a service; `state` and `identities` are the control plane's to say, and do not count here."""

    state: Text = ""
    selector: ServiceSelector = ServiceSelector()
    ports: tuple[ServicePort, ...] = ()
    identities: tuple[Identity, ...] = ()


class MeshService(Resource):
    """A service of one mesh.

    >>> spec = {"selector": {"dataplaneTags": {"app": "web"}}, "ports": [{"port": 80, "targetPort": "http"}]}
    >>> MeshService(name="web", mesh="default", spec=spec).spec.ports[0].target
    'http'
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshService",
        scope=Scope.MESH,
        path="meshservices",
        singular="Mesh Service",
        plural="Mesh Services",
        short_name="msvc",
        has_status=True,
    )

    spec: MeshServiceSpec = MeshServiceSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of services that this one breaks, in the order of Kuma's checks."""
        yield from check_name_length(self.name)
        selector = self.spec.selector
        given = (selector.dataplane_tags, selector.dataplane_ref, selector.dataplane_labels)
        if sum(each is not None for each in given) > 1:
            message = "must specify only one of: dataplaneTags, dataplaneRef, or dataplaneLabels"
            yield Violation("spec.selector", message)
        yield from check_ports("spec.ports", self.spec.ports)


def check_name_length(name: str) -> Iterator[Violation]:
    """The name of a service fits in a label of a host name."""
    if len(name) > NAME_LENGTH_MAX:
        yield Violation("name", f"must not be longer than {NAME_LENGTH_MAX} characters")
