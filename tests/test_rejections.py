"""Which policies a refusal comes from: those without which what is refused would be another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.pipeline import (
    HTTP,
    Pipeline,
    dataplane,
    mesh_timeout,
    service,
    timeout,
    to_everything,
    traffic_permission,
    with_new_mesh,
)

from kumafast.rejections import TRACED_MAX, Cause, trace
from kumafast.resources import ResourceKey
from kumafast.snapshot.resource import ENDPOINT, LISTENER
from kumafast.templates import Failure

BACKEND = [service("backend")]


@dataclass(frozen=True)
class Refusal:
    node: str
    type_url: str
    message: str
    failure: Failure | None = None


def causes(*refusals: Refusal) -> list[tuple[tuple[str, ...], list[str]]]:
    async def main() -> list[Cause]:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("other", address="10.0.0.2", tags=service("other", **HTTP)))
        await store.put(dataplane("web", tags=service("web", **HTTP), reaches=[service("backend"), service("other")]))
        await store.put(timeout("about-backend", sources=[service("*")], destinations=["backend"], request="1s"))
        await store.put(mesh_timeout("a2", to=to_everything("2s", "MeshService", name="other")))
        await store.put(mesh_timeout("a3", to=to_everything("9s", "MeshService", name="other")))
        await store.put(mesh_timeout("a1", to=to_everything("2s", "MeshService", name="other")))
        await store.put(traffic_permission("in", sources=[service("*")], destinations=[service("web")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            return await trace(refusals, pipeline.reconciler.fork, pipeline.reconciler.node)

    return [(each.resources, [key.name for key in each.policies]) for each in asyncio.run(main())]


def test_policies_are_named_that_have_a_share_in_the_resource() -> None:
    listener = "outbound:127.0.0.1:10000"
    refusal = Refusal("default.web", LISTENER, f"Error adding/updating listener(s) {listener}: no good")
    assert causes(refusal) == [((listener,), ["about-backend"])]


def test_of_several_that_say_the_same_all_are_named() -> None:
    [(_, names)] = causes(Refusal("default.web", LISTENER, "listener outbound:127.0.0.1:10001: no good"))
    # The newest first; a3, which is outweighed, is gone before the last of those that say so is.
    assert names == ["a1", "a3", "a2"]


def test_where_no_resource_is_named_all_of_the_type_count() -> None:
    [(resources, names)] = causes(Refusal("default.web", LISTENER, "who knows"))
    assert (resources, names) == ((), ["about-backend"])


def test_who_is_not_connected_or_refuses_what_no_policy_made_has_no_cause() -> None:
    away = Refusal("default.backend", LISTENER, "outbound:127.0.0.1:10000")
    endpoints = Refusal("default.web", ENDPOINT, "Error adding/updating cluster(s) backend: no good")
    assert causes(away, endpoints) == [((), []), (("backend",), [])]


def test_many_that_say_the_same_are_looked_into_once_and_too_many_not_at_all() -> None:
    same = [Refusal("default.web", LISTENER, "outbound:127.0.0.1:10000")] * 3
    many = [Refusal("default.web", LISTENER, f"{number} outbound:127.0.0.1:10000") for number in range(TRACED_MAX)]
    found = causes(*same, *many)
    assert all(names == ["about-backend"] for _, names in found[: TRACED_MAX + 2])
    assert found[-1] == ((), [])


def test_what_could_not_be_made_says_by_itself_what_it_comes_from() -> None:
    policy = ResourceKey("ProxyTemplate", "default", "t")
    named = Failure("no", LISTENER, "outbound:127.0.0.1:10000", (policy,))
    found = causes(
        Refusal("default.web", LISTENER, "no", named),
        Refusal("default.web", "", "no", Failure("no", policies=(policy,))),
    )
    assert found == [(("outbound:127.0.0.1:10000",), ["t"]), ((), ["t"])]
