"""What comes with a resource that is created: the policies of a new mesh.

In: the resource, the zone of this control plane. Out: further resources, to be written in the same commit.
Never: anything for a resource that was there already; what a user deleted stays deleted.
"""

from __future__ import annotations

from kumafast.resources import catalog
from kumafast.resources.defaults import with_defaults
from kumafast.resources.mesh import Mesh
from kumafast.resources.resource import Resource

_ALL = "*"


def initial_resources(created: Resource, *, zone: str) -> tuple[Resource, ...]:
    """The policies that a new mesh has, of all kinds that its `skipCreatingInitialPolicies` does not name."""
    if not isinstance(created, Mesh) or _ALL in created.skip_creating_initial_policies:
        return ()
    return tuple(
        with_defaults(policy, zone=zone)
        for kind in catalog.RESOURCE_TYPES
        if kind.name not in created.skip_creating_initial_policies
        for policy in catalog.model_of(kind.name).initial(created.name)
    )
