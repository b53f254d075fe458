"""`…/dataplanes/{name}/_config`: what a connected proxy is configured with, and what shadow policies would change.

In: a proxy's snapshot. Out: its resources by type and name in protobuf's JSON, and a JSON patch (RFC 6902) between two
of them. Never: what a secret holds.

In the patch what is replaced is tested, removed and added, as Kuma's is; so it fails where it does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from kumafast.generation.differences import as_json
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import AbsentError, BadRequestError, NoAnswerError, json_response
from kumafast.rest.inspection import find_proxy
from kumafast.rest.services import ApiServices
from kumafast.snapshot.resource import SECRET, XdsResource
from kumafast.snapshot.snapshot import Snapshot

Json: TypeAlias = Any
Step: TypeAlias = dict[str, Any]

# What Go's `strconv.ParseBool` takes.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})


def show_config(services: ApiServices) -> Handler:
    """`GET /meshes/{mesh}/dataplanes/{name}/_config?shadow=true&include=diff`."""

    async def show(request: Request) -> Response:
        """What a connected proxy is configured with, also under the shadow policies of its mesh."""
        is_shadow, has_diff = _parameters(request)
        node_id = (await find_proxy(services, request)).dataplane_id.node_id
        before = services.snapshot_of(node_id)
        if is_shadow:
            both = await services.shadowed(node_id)
            before, after = both or (None, None)
        else:
            after = before
        if before is None or after is None:
            others = await services.siblings.ask(request, first=True)
            if others.documents:
                return json_response(others.documents[0])
            if others.missing:
                raise NoAnswerError(f"{node_id} may be connected to {', '.join(others.missing)}", len(others.missing))
            raise AbsentError("Failed to fetch dataplane insight")
        wanted = config_document(after)
        answer: dict[str, Json] = {"xds": wanted}
        if has_diff:
            answer["diff"] = list(patch(config_document(before), wanted)) if is_shadow else []
        return json_response(answer)

    return show


def _parameters(request: Request) -> tuple[bool, bool]:
    shadow = request.query_params.get("shadow", "")
    if shadow not in _TRUE | _FALSE:
        raise BadRequestError("unsupported value for query parameter 'shadow'")
    include = [part for part in request.query_params.get("include", "").split(",") if part]
    if any(part != "diff" for part in include):
        raise BadRequestError("unsupported value for query parameter 'include'")
    return shadow in _TRUE, bool(include)


def config_document(snapshot: Snapshot) -> dict[str, dict[str, Json]]:
    """All resources by type URL and name, each in alphabetical order."""
    return {
        type_url: {name: _shown(each) for name, each in sorted(snapshot.resources(type_url).items())}
        for type_url in sorted(snapshot.type_urls)
    }


def _shown(resource: XdsResource) -> Json:
    return as_json(resource.type_url, resource.body if resource.type_url != SECRET else b"") or {"name": resource.name}


def patch(before: Json, after: Json, path: str = "") -> Iterator[Step]:
    """The steps from one JSON value to another, as RFC 6902 has them.

    >>> list(patch({"a": [1, 2], "b/c": 1}, {"a": [1], "b/c": 2}))[0]
    {'op': 'test', 'path': '/a/1', 'value': 2}
    """
    if before == after and type(before) is type(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in before.items():
            where = f"{path}/{_escaped(key)}"
            if key in after:
                yield from patch(value, after[key], where)
            else:
                yield from _removed(where, value)
        for key, value in after.items():
            if key not in before:
                yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(before, after, path)
    else:
        yield from _removed(path, before)
        yield {"op": "add", "path": path, "value": after}


def _of_lists(before: list[Json], after: list[Json], path: str) -> Iterator[Step]:
    """What differs between the elements that are equal at the beginning and at the end of both."""
    shorter = min(len(before), len(after))
    start = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    end = next((n for n in range(shorter - start) if before[-1 - n] != after[-1 - n]), shorter - start)
    gone, come = before[start : len(before) - end], after[start : len(after) - end]
    both = min(len(gone), len(come))
    for number in range(both):
        yield from patch(gone[number], come[number], f"{path}/{start + number}")
    for number in reversed(range(both, len(gone))):
        yield from _removed(f"{path}/{start + number}", gone[number])
    for number in range(both, len(come)):
        yield {"op": "add", "path": f"{path}/{start + number}", "value": come[number]}


def _removed(path: str, value: Json) -> Iterator[Step]:
    yield {"op": "test", "path": path, "value": value}
    yield {"op": "remove", "path": path, "value": value}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
