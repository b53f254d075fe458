"""`…/_explanation`: why policies come to what they come to, of one proxy or for one policy. Ours, not Kuma's.

In: a proxy, or a policy and those that it selects. Out: for each subject of a proxy (itself, its inbounds, the services
that it reaches) and kind of policy what holds, and of each candidate what becomes of it, with reasons in words.
Never: more proxies than a page, however many a policy selects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response

from kumafast.matching import PASS_THROUGH, BackendPort, CompiledPolicy
from kumafast.matching.explanation import Candidate, Explanation, explain_inbound, explain_outbound, explain_whole
from kumafast.registry import DataplaneId
from kumafast.registry.gateways import is_builtin
from kumafast.resources import Dataplane
from kumafast.resources.resource import ResourceKey
from kumafast.resources.tags import SERVICE_TAG
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import encoded_response, json_response
from kumafast.rest.inspection import Proxy, find_policy, find_proxy, in_turns, meta, proxy_named, traits_of
from kumafast.rest.paging import page, window
from kumafast.rest.services import ApiServices

Json: TypeAlias = dict[str, Any]
Subject: TypeAlias = tuple[Json, tuple[Explanation, ...]]
"""How answers refer to a part of a proxy, and the explanations of it."""

PROXY: Final = "proxy"
INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"


def explain_proxy(services: ApiServices) -> Handler:
    """`GET /meshes/{mesh}/dataplanes/{name}/_explanation`."""

    async def show(request: Request) -> Response:
        """Why policies come to what they come to for a proxy."""
        proxy = await find_proxy(services, request)
        found = [
            {**subject, "policies": [_explained(each) for each in explanations]}
            for subject, explanations in subjects(proxy)
        ]
        return json_response({"resource": meta(proxy.dataplane), "subjects": found})

    return show


def explain_policy(services: ApiServices) -> Handler:
    """`GET /meshes/{mesh}/{policies}/{name}/_explanation`."""

    async def show(request: Request) -> Response:
        """What becomes of a policy for each of those that it selects, in pages."""
        part = window(request)
        policy = await find_policy(services, request)
        key, picture = policy.key, services.picture
        wanted = request.query_params.get("name", "")
        found = [name for name in picture.selected_by(key) if wanted in name]
        items = []
        async for name in in_turns(part.of(found)):
            if picture.dataplane(DataplaneId(key.mesh, name)) is not None:
                items.append(orjson.dumps(_of_policy(proxy_named(picture, key.mesh, name), key)))
        body = page(request, items, total=len(found), window=part)
        return encoded_response(b'{"resource":%s,%s' % (orjson.dumps(meta(policy)), body[1:]))

    return show


def subjects(proxy: Proxy) -> Iterator[Subject]:
    """All that policies can be about, in order: the proxy where some are about it, inbounds, services of outbounds."""
    dataplane = proxy.dataplane
    whole = explain_whole(proxy.bindings)
    if whole:
        yield {"subject": PROXY, "name": dataplane.name, "service": "", "addresses": []}, whole
    for position, inbound in enumerate(proxy.inbounds):
        about = {
            "subject": INBOUND,
            "name": inbound.section_name,
            "service": inbound.service,
            "addresses": [f"{dataplane.inbound_address(inbound)}:{inbound.port}"],
        }
        yield about, explain_inbound(proxy.bindings, position)
    yield from _by_listeners(proxy)
    addresses: dict[str, list[str]] = {}
    for outbound in () if is_builtin(dataplane) else dataplane.outbounds:
        if outbound.service:
            address = f"{dataplane.outbound_address(outbound)}:{outbound.port}"
            addresses.setdefault(outbound.service, []).append(address)
    if has_pass_through(dataplane):
        addresses[PASS_THROUGH] = []
    for service, listening in addresses.items():
        about = {"subject": OUTBOUND, "name": service, "service": service, "addresses": listening}
        # What is about inbounds and asks clients to say who they are has nothing to say here.
        found = explain_outbound(proxy.bindings, service)
        yield about, tuple(each for each in found if not traits_of(each.kind).is_by_inbound)


def _by_listeners(proxy: Proxy) -> Iterator[Subject]:
    """Of a built-in gateway, the services that each of its listeners leads to."""
    gateway = proxy.gateway
    for position, attached in enumerate(() if gateway is None else gateway.listeners):
        listener = attached.listener
        where = f"{proxy.dataplane.address}:{listener.port}"
        led = [dict(each) for each in attached.destinations if not isinstance(each, BackendPort)]
        for service in sorted({tags.get(SERVICE_TAG, "") for tags in led}):
            about = {"subject": OUTBOUND, "name": service, "service": service, "addresses": [where]}
            found = explain_outbound(proxy.bindings.through(position), service)
            yield about, tuple(each for each in found if not traits_of(each.kind).is_by_inbound)


def has_pass_through(dataplane: Dataplane) -> bool:
    """Whether a proxy lets through what is redirected to it and is for no service of the mesh."""
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    return proxying is not None and bool(proxying.redirect_port_outbound)


def _explained(explanation: Explanation) -> Json:
    candidates = [_candidate(candidate) for candidate in explanation.candidates]
    return {"type": explanation.kind, "conf": explanation.conf, **_silence(explanation), "candidates": candidates}


def _of_policy(proxy: Proxy, key: ResourceKey) -> Json:
    found = [
        {**_candidate(candidate), **subject, "conf": explanation.conf, **_silence(explanation)}
        for subject, explanations in subjects(proxy)
        for explanation in explanations
        if explanation.kind == key.type
        for candidate in explanation.candidates
        if candidate.policy.key == key
    ]
    return {"name": proxy.dataplane.name, "subjects": found}


def _silence(explanation: Explanation) -> Json:
    if explanation.silenced_by is None:
        return {}
    return {"silencedBy": _named(explanation.silenced_by), "reason": explanation.silence}


def _candidate(candidate: Candidate) -> Json:
    losses = [
        {"fields": [".".join(path) for path in loss.fields], "to": loss.to.key.name, "reason": loss.reason}
        for loss in candidate.losses
    ]
    return {
        "name": candidate.policy.key.name,
        "verdict": candidate.verdict.value,
        "fields": [".".join(path) for path in candidate.fields],
        "losses": losses,
    }


def _named(policy: CompiledPolicy) -> Json:
    return {"type": policy.key.type, "name": policy.key.name}
