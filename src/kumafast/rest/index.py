"""What this server is and what it serves.

In: the services and the catalogue of resource types. Out: `/`, `/config`, `/_resources`, `/policies`, `/who-am-i`,
`/global-insights`. Never: resources themselves.
"""

from __future__ import annotations

import socket

import orjson
from starlette.requests import Request
from starlette.responses import Response

from kumafast.resources.catalog import RESOURCE_TYPES
from kumafast.resources.resource import PolicyTraits, ResourceType, Scope
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import encoded_response, json_response
from kumafast.rest.services import ApiServices


def index(services: ApiServices) -> Handler:
    """`GET /`."""
    # Kuma's clients warn unless they meet the product and the version that they were built with, so these two fields
    # say whose API this is. What serves it stands in `basedOnKuma`, Kuma's own field for that, and in `kumafast`.
    body = orjson.dumps(
        {
            "clusterId": services.cluster_id,
            "hostname": socket.gethostname(),
            "instanceId": services.instance_id,
            "product": "Kuma",
            "version": services.kuma_version,
            "basedOnKuma": services.kuma_version,
            "kumafast": services.version,
        }
    )

    async def show(_: Request) -> Response:
        """What serves here, and whose API it speaks."""
        return encoded_response(body)

    return show


def config(services: ApiServices) -> Handler:
    """`GET /config`."""

    async def show(_: Request) -> Response:
        """The settings with which the control plane runs."""
        return json_response(dict(services.settings_document))

    return show


async def show_resource_types(_: Request) -> Response:
    """All types of resources that can be asked for."""
    return json_response({"resources": [_described(kind) for kind in RESOURCE_TYPES]})


async def show_policies(_: Request) -> Response:
    """The types of policies."""
    described = ((kind, _traits(kind)) for kind in RESOURCE_TYPES)
    policies = [_described_policy(kind, traits) for kind, traits in described if traits is not None]
    return json_response({"policies": policies})


async def who_am_i(request: Request) -> Response:
    """The user that the server takes the client for."""
    user = request.state.user
    return json_response({"name": user.name, "groups": list(user.groups)})


def global_insights(services: ApiServices) -> Handler:
    """`GET /global-insights`."""

    async def count(_: Request) -> Response:
        """How many resources of each global type there are."""
        kinds = [kind for kind in RESOURCE_TYPES if kind.scope is Scope.GLOBAL and not kind.is_read_only]
        counted = {kind.name: {"total": len((await services.store.list(kind.name)).items)} for kind in kinds}
        # The time is Go's zero time: nothing is created, the counts are of this moment.
        return json_response({"type": "GlobalInsights", "creationTime": "0001-01-01T00:00:00Z", "resources": counted})

    return count


def _traits(kind: ResourceType) -> PolicyTraits | None:
    return PolicyTraits(order=0) if kind.is_called_policy else kind.policy


def _described_policy(kind: ResourceType, traits: PolicyTraits) -> dict[str, object]:
    return {
        "name": kind.name,
        "readOnly": kind.is_read_only,
        "path": kind.path,
        "singularDisplayName": kind.singular,
        "pluralDisplayName": kind.plural,
        "isExperimental": False,
        "isTargetRefBased": traits.is_target_ref,
        "isInbound": traits.has_from or traits.has_rules,
        "isOutbound": traits.has_to,
    }


def _described(kind: ResourceType) -> dict[str, object]:
    traits = _traits(kind)
    policy = (
        {}
        if traits is None
        else {
            "policy": {
                "hasFromTargetRef": traits.has_from,
                "hasRulesTargetRef": traits.has_rules,
                "hasToTargetRef": traits.has_to,
                "isFromAsRules": traits.is_from_as_rules,
                "isTargetRef": traits.is_target_ref,
            }
        }
    )
    return {
        "includeInFederation": kind.is_in_federation,
        "name": kind.name,
        "path": kind.path,
        "pluralDisplayName": kind.plural,
        **policy,
        "readOnly": kind.is_read_only,
        "scope": kind.scope.value,
        "shortName": kind.short_name,
        "singularDisplayName": kind.singular,
    }
