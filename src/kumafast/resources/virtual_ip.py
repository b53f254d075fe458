"""A virtual address that something of a mesh holds: what proxies listen on, and what its names resolve to.

In: nothing that users write; the control plane keeps these for itself. Out: `VirtualIP`, frozen, and `Holder`.
Never: which address is given to whom (`ipam`), or what leads there.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from kumafast.resources.fields import Text
from kumafast.resources.resource import Resource, ResourceType, Scope

SERVICE = "Service"
"""The kind of those that hold an address for a `kuma.io/service`."""
HOST = "Host"
"""… for the host of an ExternalService."""
DOMAIN = "FullyQualifiedDomain"
"""… for a name that a VirtualOutbound makes."""


class Holder(NamedTuple):
    """What holds an address in a mesh: one of the kinds above or the name of a kind of resource, and a name."""

    kind: str
    name: str


class VirtualIP(Resource):
    """An address that is taken in its mesh. It is named by the address, so that the store gives none twice.

    >>> taken = VirtualIP(mesh="default", name="240.0.0.7", holder_kind=SERVICE, holder_name="web")
    >>> taken.address, taken.holder
    ('240.0.0.7', Holder(kind='Service', name='web'))
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="VirtualIP",
        scope=Scope.MESH,
        path="virtual-ips",
        singular="Virtual IP",
        plural="Virtual IPs",
        is_read_only=True,
    )

    holder_kind: Text = ""
    holder_name: Text = ""

    @classmethod
    def of(cls, mesh: str, address: str, holder: Holder) -> VirtualIP:
        """The record that a holder has an address."""
        return cls(mesh=mesh, name=address, holder_kind=holder.kind, holder_name=holder.name)

    @property
    def address(self) -> str:
        """The address, IPv4 or IPv6, as text."""
        return self.name

    @property
    def holder(self) -> Holder:
        """Who has it."""
        return Holder(self.holder_kind, self.holder_name)
