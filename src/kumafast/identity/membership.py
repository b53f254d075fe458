"""Who may be in a mesh: the constraints that a Mesh puts on its dataplanes.

In: a dataplane and its mesh. Out: violations, with the tags that are in the way. Never: a certificate, or a dataplane
that is thrown out: constraints are looked at when a dataplane is written and when its launcher asks for a bootstrap.
One that is in the mesh when its constraints change stays until then, and stays connected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from kumafast.errors import Violation
from kumafast.resources import Dataplane, Mesh
from kumafast.resources.mesh import DataplaneConstraints

_ANY = "*"


def check_membership(dataplane: Dataplane, mesh: Mesh) -> Iterator[Violation]:
    """What keeps a dataplane out of a mesh: each of its inbounds, and its gateway, has to be welcome by itself."""
    constraints = None if mesh.constraints is None else mesh.constraints.dataplane_proxy
    if constraints is None:
        return
    for path, tags in _tag_sets(dataplane):
        message = _objection(tags, constraints)
        if message:
            yield Violation(path, f"dataplane cannot be a member of mesh {_quoted(mesh.name)} because {message}")


def _tag_sets(dataplane: Dataplane) -> Iterator[tuple[str, Mapping[str, str]]]:
    for i, inbound in enumerate(dataplane.inbounds):
        yield f"networking.inbound[{i}].tags", inbound.tags
    if dataplane.gateway is not None:
        yield "networking.gateway.tags", dataplane.gateway.tags
    if not dataplane.inbounds and dataplane.gateway is None:
        # Kuma has nothing to check here and lets it in; a dataplane without tags fulfils no requirement.
        yield "networking", {}


def _objection(tags: Mapping[str, str], constraints: DataplaneConstraints) -> str:
    requirements = constraints.requirements
    if requirements and not any(_has(tags, requirement.tags) for requirement in requirements):
        return f"its tags {_shown(tags)} does not fulfill any requirements defined on the Mesh"
    for restriction in constraints.restrictions:
        if _has(tags, restriction.tags):
            return f"its tags {_shown(tags)} matches restricted tags {_shown(restriction.tags)} defined on the Mesh"
    return ""


def _has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(tags.get(key, "") != "" if value == _ANY else tags.get(key) == value for key, value in wanted.items())


def _shown(tags: Mapping[str, str]) -> str:
    return _quoted(" ".join(f"{key}={value}" for key, value in sorted(tags.items())))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
