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


def initial_resources(created: Resource, *, zone: str, routes: bool = False) -> tuple[Resource, ...]:
    """The policies that a new mesh has, of all kinds that its `skipCreatingInitialPolicies` does not name.

    With `routes` those too by which all of its traffic is permitted and routed.
    """
    if not isinstance(created, Mesh) or _ALL in created.skip_creating_initial_policies:
        return ()
    return tuple(
        with_defaults(policy, zone=zone)
        for kind in catalog.RESOURCE_TYPES
        if kind.name not in created.skip_creating_initial_policies
        for policy in _initial(catalog.model_of(kind.name), created.name, routes=routes)
    )


def _initial(model: type[Resource], mesh: str, *, routes: bool) -> tuple[Resource, ...]:
    return (*model.initial(mesh), *(model.initial_routing(mesh) if routes else ()))
