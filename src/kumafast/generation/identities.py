"""Whom tags mean: the condition that a client's certificate has to meet.

In: a mesh, tags. Out: conditions. Never: certificates; `identity` makes those with the same URIs.
"""

from __future__ import annotations

from kumafast.generation.proxy import Tags
from kumafast.generation.rbac import Condition, Uri, all_of
from kumafast.resources.spiffe import spiffe_id, tag_uri
from kumafast.resources.tags import SERVICE_TAG


def client(mesh: str, tags: Tags) -> Condition:
    """The workloads with all of these tags, the service first; everybody where there are none."""
    ordered = sorted(tags, key=lambda tag: (tag[0] != SERVICE_TAG, tag))
    return all_of(Uri(spiffe_id(mesh, value) if key == SERVICE_TAG else tag_uri(key, value)) for key, value in ordered)
