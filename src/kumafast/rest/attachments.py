"""Which policies are attached to which parts of a proxy: the older way to ask, and who a policy selects.

In: a proxy; a policy. Out: Kuma's documents `…/dataplanes/{name}/policies`, `…/{policies}/{name}/dataplanes` and
`…/{policies}/{name}/_resources/dataplanes`. Never: a policy that is outweighed or silenced as attached.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from kumafast.matching import CompiledPolicy
from kumafast.matching.explanation import Explanation, Verdict, explain_inbound, explain_outbound, explain_whole
from kumafast.registry import DataplaneId
from kumafast.resources.resource import ResourceKey
from kumafast.rest.documents import Documents
from kumafast.rest.errors import json_response
from kumafast.rest.inspection import (
    GATEWAY_KINDS,
    Proxy,
    find_proxy,
    find_selecting,
    in_turns,
    meta,
    proxy_named,
    traits_of,
)
from kumafast.rest.paging import next_page, window
from kumafast.rest.services import ApiServices

Json: TypeAlias = dict[str, Any]

_SIDECAR: Final = "SidecarDataplane"
_KINDS: Final = ("dataplane", "inbound", "outbound", "service")


class Attachment(NamedTuple):
    """A part of a proxy that policies are attached to."""

    kind: str
    name: str = ""
    service: str = ""

    @property
    def document(self) -> Json:
        """How answers put it."""
        return {"type": self.kind, "name": self.name, "service": self.service}


class Attachments:
    """Answers who has which policies, either way."""

    def __init__(self, services: ApiServices, documents: Documents) -> None:
        self._services = services
        self._documents = documents

    async def selected(self, request: Request) -> Response:
        """A page of the dataplanes that a policy has to do with."""
        part = window(request)
        key = (await find_selecting(self._services, request)).key
        picture = self._services.picture
        wanted = request.query_params.get("name", "")
        names = [name for name in picture.selected_by(key) if wanted in name]
        found = (picture.dataplane(DataplaneId(key.mesh, name)) for name in part.of(names))
        items = [meta(dataplane) for dataplane in found if dataplane is not None]
        following = next_page(request, total=len(names), window=part)
        return json_response({"items": items, "total": len(names), **({"next": following} if following else {})})

    async def attached(self, request: Request) -> Response:
        """The dataplanes that a policy is attached to, and where."""
        key = (await find_selecting(self._services, request)).key
        picture = self._services.picture
        if key.type in GATEWAY_KINDS:
            gateways = [{"dataplane": {"mesh": key.mesh, "name": name}} for name in picture.selected_by(key)]
            return json_response({"total": len(gateways), "items": gateways})
        items = []
        async for name in in_turns(picture.selected_by(key)):
            if picture.dataplane(DataplaneId(key.mesh, name)) is not None:
                found = [where for where, policy in attachments(proxy_named(picture, key.mesh, name)) if policy == key]
                if found:
                    items.append(
                        {
                            "dataplane": {"mesh": key.mesh, "name": name},
                            "kind": _SIDECAR,
                            "attachments": [where.document for where in _ordered(found)],
                        }
                    )
        return json_response({"total": len(items), "items": items})

    async def policies(self, request: Request) -> Response:
        """The policies that are attached to the parts of a proxy. Deprecated; `_rules` says more."""
        proxy = await find_proxy(self._services, request)
        by_part: dict[Attachment, dict[ResourceKey, None]] = {}
        for where, key in attachments(proxy):
            by_part.setdefault(where, {})[key] = None
        items = []
        for where in _ordered(by_part):
            matched: dict[str, list[Json]] = {}
            for key in sorted(by_part[where]):
                stored = proxy.picture.written(key)
                assert stored is not None
                matched.setdefault(key.type, []).append(self._documents.document(stored))
            items.append({**where.document, "matchedPolicies": matched})
        return json_response({"kind": _SIDECAR, "total": len(items), "items": items})


def attachments(proxy: Proxy) -> Iterator[tuple[Attachment, ResourceKey]]:
    """Where each policy of a proxy is attached: those of one winner where they win, all others to the whole of it."""
    dataplane, bindings = proxy.dataplane, proxy.bindings
    whole = Attachment("dataplane")
    for number in bindings.ranks:
        policy = bindings.subjects.policies[number]
        if policy.is_target_ref:
            yield whole, policy.key
    for policy in _applied(explain_whole(bindings)):
        yield whole, policy.key
    for position, inbound in enumerate(dataplane.inbounds):
        address = dataplane.inbound_address(inbound)
        name = f"{address}:{inbound.port}:{dataplane.inbound_service_port(inbound)}"
        for policy in _applied(explain_inbound(bindings, position)):
            yield Attachment("inbound", name, inbound.service), policy.key

    @cache
    def applied(service: str) -> tuple[CompiledPolicy, ...]:
        return tuple(_applied(explain_outbound(bindings, service)))

    for outbound in dataplane.outbounds:
        service = outbound.service
        for policy in applied(service) if service else ():
            traits = traits_of(policy.key.type)
            if traits.is_by_inbound:
                continue
            if traits.is_by_service:
                yield Attachment("service", service, service), policy.key
            else:
                yield (
                    Attachment("outbound", f"{dataplane.outbound_address(outbound)}:{outbound.port}", service),
                    policy.key,
                )


def _applied(explanations: Iterable[Explanation]) -> Iterator[CompiledPolicy]:
    for explanation in explanations:
        for candidate in explanation.candidates:
            if candidate.verdict is Verdict.APPLIES and not candidate.policy.is_target_ref:
                yield candidate.policy


def _ordered(found: Iterable[Attachment]) -> list[Attachment]:
    return sorted(set(found), key=lambda each: (_KINDS.index(each.kind), each.name, each.service))
