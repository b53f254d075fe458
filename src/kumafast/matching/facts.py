"""What a policy can ask of a dataplane, as tags: its own, and facts about it that are no tags of its own.

In: a dataplane. Out: one `TagSet` for each inbound or listener, and one for what makes it a gateway; the names of the
facts.
Never: a policy.

Facts stand beside the tags under names that no tag can have, since `@` is not allowed in one. So both families of
policies compile to the same selectors over the same index: the proxy named web-1 is the selector `{"@name": "web-1"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kumafast._core import TagSet
from kumafast.resources import Dataplane
from kumafast.resources.defaults import ORIGIN_LABEL, ZONE_LABEL
from kumafast.resources.target_ref_policy import DISPLAY_NAME_LABEL, NAMESPACE_LABEL

PROXY = "@proxy"
"""`Sidecar` or `Gateway`; of a built-in gateway the listeners have it, which are all that a targetRef can choose."""
MESH_GATEWAY = "@mesh-gateway"
"""Of a listener, the MeshGateway that it is of."""
NAME = "@name"
NAMESPACE = "@namespace"
ZONE = "@zone"
HOME_ZONE = "@home-zone"
"""The zone of a dataplane that a zone's control plane wrote; policies of other zones do not reach it."""
ANY_ZONE = "@any-zone"
"""Present where a dataplane has no home zone."""
SECTION = "@section"
ANY = "*"

SIDECAR = "Sidecar"
GATEWAY = "Gateway"
_PRESENT = "yes"


def label(name: str) -> str:
    """The fact that stands for a label."""
    return f"@label/{name}"


def candidates(dataplane: Dataplane) -> tuple[TagSet, ...]:
    """What policies are matched against: the inbounds in their order, then the gateway where it is one."""
    gateway = dataplane.gateway
    shared = _shared(dataplane)
    proxy = SIDECAR if gateway is None else GATEWAY
    found = [
        TagSet({**shared, PROXY: proxy, SECTION: inbound.section_name, **inbound.tags})
        for inbound in dataplane.inbounds
    ]
    if gateway is not None:
        role = {PROXY: GATEWAY} if gateway.type == "DELEGATED" else {}
        found.append(TagSet({**shared, **role, **gateway.tags}))
    return tuple(found)


def listener_candidates(dataplane: Dataplane, name: str, tags: Iterable[Mapping[str, str]]) -> tuple[TagSet, ...]:
    """The same for listeners of a built-in gateway: of a MeshGateway with a name, each with its tags.

    They have neither the name nor the labels of their dataplane, as no policy for dataplanes is for them.
    """
    shared = _place(dataplane)
    return tuple(TagSet({**shared, PROXY: GATEWAY, MESH_GATEWAY: name, **each}) for each in tags)


def _shared(dataplane: Dataplane) -> dict[str, str]:
    labels = dataplane.labels
    return {
        NAME: labels.get(DISPLAY_NAME_LABEL) or dataplane.name,
        **_place(dataplane),
        **{label(name): value for name, value in labels.items()},
    }


def _place(dataplane: Dataplane) -> dict[str, str]:
    labels = dataplane.labels
    zone = labels.get(ZONE_LABEL, "")
    is_at_home = labels.get(ORIGIN_LABEL) == "zone" and zone
    return {
        NAMESPACE: labels.get(NAMESPACE_LABEL, ""),
        ZONE: zone,
        **({HOME_ZONE: zone} if is_at_home else {ANY_ZONE: _PRESENT}),
    }
