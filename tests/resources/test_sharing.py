"""A resource that is written anew holds the values of the one before wherever they are the same, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import Dataplane, parse, to_document
from kumafast.resources.resource import Resource
from kumafast.resources.sharing import sharing

WEB: dict[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-1",
    "labels": {"team": "shop"},
    "networking": {
        "address": "127.0.0.1",
        "inbound": [{"port": 8080, "tags": {"kuma.io/service": "web", "kuma.io/protocol": "http"}}],
        "outbound": [{"port": 10001, "tags": {"kuma.io/service": "backend"}}],
    },
}
FAULTS: dict[str, Any] = {
    "type": "MeshProxyPatch",
    "mesh": "default",
    "name": "patch",
    "spec": {
        "targetRef": {"kind": "Mesh"},
        "default": {
            "appendModifications": [
                {"networkFilter": {"operation": "Patch", "jsonPatches": [{"op": "add", "path": "/a", "value": 1}]}}
            ]
        },
    },
}


def web(**changes: Any) -> Dataplane:
    found = parse({**WEB, "networking": {**WEB["networking"], **changes}})
    assert isinstance(found, Dataplane)
    return found


def test_what_moves_holds_all_else_that_it_had() -> None:
    before = web()
    moved = sharing(web(address="127.0.0.2"), before)
    assert moved == web(address="127.0.0.2")
    assert (moved.name, moved.labels) == (before.name, before.labels)
    assert moved.name is before.name
    assert moved.labels is before.labels
    assert moved.inbounds is before.inbounds
    assert moved.outbounds is before.outbounds


def test_of_a_list_what_is_the_same_stays() -> None:
    before = web()
    more = sharing(web(inbound=[*WEB["networking"]["inbound"], {"port": 9090}]), before)
    assert [each.port for each in more.inbounds] == [8080, 9090]
    assert more.inbounds[0] is before.inbounds[0]
    fewer = sharing(web(inbound=[]), before)
    assert fewer.inbounds == ()


def test_the_same_again_is_what_there_was() -> None:
    before = web()
    assert sharing(web(), before) is before


@pytest.mark.parametrize("value", [True, 1.0, "1", {"b": 1}, [1], None])
def test_what_only_compares_equal_is_what_was_written(value: object) -> None:
    before = parse(FAULTS)
    after = sharing(patched(value), before)
    assert repr(to_document(after)) == repr(to_document(patched(value)))
    assert repr(to_document(sharing(patched(1), after))) == repr(to_document(before))


def test_the_order_of_a_map_is_what_was_written() -> None:
    before, after = patched({"a": 1, "b": 2}), patched({"b": 2, "a": 1})
    assert repr(to_document(sharing(after, before))) == repr(to_document(patched({"b": 2, "a": 1})))


def patched(value: object) -> Resource:
    filters = FAULTS["spec"]["default"]["appendModifications"][0]["networkFilter"]
    patch = {**filters, "jsonPatches": [{"op": "add", "path": "/a", "value": value}]}
    default = {"appendModifications": [{"networkFilter": patch}]}
    return parse({**FAULTS, "spec": {**FAULTS["spec"], "default": default}})
