"""What changes would do, for people: grouped, bounded, and right while other changes come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.pipeline import (
    HTTP,
    Pipeline,
    dataplane,
    mesh_timeout,
    of_dataplanes,
    service,
    timeout,
    to_everything,
    with_new_mesh,
)

from kumafast import preview
from kumafast.fork import RESTARTS_MAX, Fork
from kumafast.preview import Edit, Kind, Preview, foresee
from kumafast.resources import Resource
from kumafast.snapshot.resource import CLUSTER, LISTENER
from kumafast.store import Change, MemoryStore, StoredResource

HTTP_FILTER = "envoy.filters.network.http_connection_manager"
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def change(resource: Resource) -> Change:
    return Change(resource.key, StoredResource(resource, 9, LATER, LATER))


async def a_mesh(*, clients: int) -> MemoryStore:
    store = await with_new_mesh()
    for number in range(3):
        tags = service(f"backend-{number}", **HTTP)
        await store.put(dataplane(f"backend-{number}", address=f"10.0.1.{number}", tags=tags))
    for number in range(clients):
        reaches = [service(f"backend-{number % 3}"), service("backend-0")]
        await store.put(
            dataplane(f"c{number:02}", address=f"10.0.0.{number}", tags=service("c", **HTTP), reaches=reaches)
        )
    return store


def foreseen(*resources: Resource, clients: int = 9, connected: Sequence[str] = ()) -> Preview:
    async def main() -> Preview:
        async with Pipeline(await a_mesh(clients=clients)) as pipeline:
            pipeline.connect(*connected)
            reconciler = pipeline.reconciler
            return await foresee(reconciler.fork, reconciler.node, list(map(change, resources)))

    return asyncio.run(main())


def told(edit: Edit) -> tuple[Kind, str, tuple[str, ...], list[tuple[object, object]]]:
    return edit.kind, edit.type_url, edit.names, [(each.before, each.after) for each in edit.differences]


def test_the_same_edit_of_many_is_one() -> None:
    found = foreseen(timeout(sources=[service("c")], destinations=["*"], request="1s"), connected=["c01", "c02"])
    assert [each.name for each in found.proxies] == [f"c{number:02}" for number in range(9)]
    assert (found.connected, found.total, found.proxies_left_out) == (2, 12, 0)
    [group] = found.groups
    assert group.proxies == found.proxies
    # Two ports each, of which one leads to another service for each third.
    names = ("outbound:127.0.0.1:10000", "outbound:127.0.0.1:10001")
    assert [told(edit) for edit in group.edits] == [(Kind.CHANGED, LISTENER, names, [("15s", "1s")])]
    # Clients of three kinds; of two kinds one is connected, and says of itself what it can.
    assert found.work.computed == 3 + 2


def test_proxies_are_grouped_by_what_is_different() -> None:
    found = foreseen(
        timeout("one", sources=[service("c")], destinations=["backend-0"], request="1s"),
        timeout("two", sources=[service("c")], destinations=["backend-1"], request="2s"),
    )
    groups = [
        ([each.name for each in group.proxies], [told(edit)[2:] for edit in group.edits]) for group in found.groups
    ]
    ports = ("outbound:127.0.0.1:10000", "outbound:127.0.0.1:10001")
    assert groups == [
        ([f"c{number:02}" for number in range(9)], [(ports, [("15s", "1s")])]),
        (["c01", "c04", "c07"], [(ports[:1], [("15s", "2s")])]),
    ]


def test_what_comes_in_goes_by_any_address() -> None:
    spec: dict[str, Any] = {"targetRef": {"kind": "MeshService", "name": "c"}, "from": to_everything("3s")}
    policy = mesh_timeout("a", **spec)
    found = foreseen(policy)
    [group] = found.groups
    assert len(group.proxies) == 9
    assert [told(edit) for edit in group.edits] == [
        (Kind.CHANGED, LISTENER, ("inbound:<address>:8080",), [("0s", "3s")])
    ]
    alone = foreseen(policy, clients=1)
    assert [edit.names for edit in alone.groups[0].edits] == [("inbound:10.0.0.0:8080",)]


def test_a_proxy_that_comes_has_everything_added() -> None:
    found = foreseen(dataplane("new", address="10.0.9.9", tags=service("new"), reaches=[service("backend-0")]))
    [group] = found.groups
    assert [each.name for each in group.proxies] == ["new"]
    assert {edit.kind for edit in group.edits} == {Kind.ADDED}
    clusters = [edit for edit in group.edits if edit.type_url == CLUSTER]
    assert [edit.names[0] for edit in clusters] == ["localhost:8080", "backend-0"]
    assert all(edit.content["name"] == edit.names[0] for edit in clusters if edit.content is not None)


def test_of_too_many_the_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "CLASSES_MAX", 2)
    monkeypatch.setattr(preview, "EDITS_MAX", 1)
    found = foreseen(
        timeout("one", sources=[service("c")], destinations=["backend-0"], request="1s"),
        timeout("two", sources=[service("c")], destinations=["backend-1"], request="2s"),
    )
    assert (len(found.proxies), found.proxies_left_out) == (6, 3)
    assert (sum(len(group.edits) for group in found.groups), found.edits_left_out) == (1, 1)


@pytest.mark.parametrize(("writes", "forks"), [(0, 1), (2, 3), (10_000, RESTARTS_MAX + 1)])
def test_it_begins_anew_when_something_changes_and_ends_though_it_never_rests(
    writes: int, forks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everything else has its turn after each piece.
    monkeypatch.setattr(preview, "TURN_S", 0.0)

    async def main() -> tuple[Preview, int]:
        async with Pipeline(await a_mesh(clients=9)) as pipeline:
            reconciler = pipeline.reconciler
            made = 0

            def fork() -> Fork:
                nonlocal made
                made += 1
                return reconciler.fork()

            async def write() -> None:
                for number in range(writes):
                    address = f"10.1.{number >> 8 & 255}.{number & 255}"
                    written = change(dataplane("backend-2", address=address, tags=service("backend-2", **HTTP)))
                    reconciler.take_in([written], revision=number + 100)
                    await asyncio.sleep(0)

            writing = asyncio.create_task(write())
            policy = change(timeout(sources=[service("c")], destinations=["*"], request="1s"))
            found = await foresee(fork, reconciler.node, [policy])
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            return found, made

    found, made = asyncio.run(main())
    assert len(found.proxies) == 9
    assert made == forks


def unfit(**match: str) -> Resource:
    """A template that is fine by itself, and of another type than the filters of TCP that it is to patch."""
    value = "{name: a, typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    steps = [{"networkFilter": {"operation": "patch", "match": match, "value": value}}]
    return of_dataplanes("ProxyTemplate", "t", selectors=[service("c")], imports=["default-proxy"], modifications=steps)


def test_whoever_would_keep_what_it_has_is_named_with_the_reason() -> None:
    found = foreseen(unfit(name=HTTP_FILTER), connected=["c01"])
    assert (found.proxies, found.groups) == ((), ())
    [failed] = found.failed
    assert [each.name for each in failed.proxies] == [f"c{number:02}" for number in range(9)]
    assert failed.message.startswith("modifications[0].networkFilter: envoy.filters.network.http_connection_manager")
    # The name of what is each proxy's own stands for those of all of them.
    assert (failed.type_url, failed.names) == (LISTENER, ("inbound:<address>:8080",))
    assert failed.policies == (unfit().key,)
    [alone] = foreseen(unfit(name=HTTP_FILTER), clients=1).failed
    assert alone.names == ("inbound:10.0.0.0:8080",)


def test_what_a_better_template_would_change_is_told_against_what_is_kept() -> None:
    async def main() -> Preview:
        async with Pipeline(await a_mesh(clients=3)) as pipeline:
            pipeline.connect("c00", "c01")
            await pipeline.settle()
            await pipeline.store.put(unfit(name=HTTP_FILTER))
            await pipeline.settle()
            reconciler = pipeline.reconciler
            limit = timeout(sources=[service("c")], destinations=["*"], request="1s")
            return await foresee(reconciler.fork, reconciler.node, [Change(unfit().key, None), change(limit)])

    found = asyncio.run(main())
    assert found.failed == ()
    edits = {
        each.name: [edit for group in found.groups if each in group.proxies for edit in group.edits]
        for each in found.proxies
    }
    # Those that are connected go on from what they kept.
    for name in ("c00", "c01"):
        assert {edit.kind for edit in edits[name]} == {Kind.CHANGED}
        assert [(each.before, each.after) for edit in edits[name] for each in edit.differences] == [("15s", "1s")]
    # And who would come has nothing yet.
    assert {edit.kind for edit in edits["c02"]} == {Kind.ADDED}
