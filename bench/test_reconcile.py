"""A change costs what it changes: the same work in a mesh of 1,000 dataplanes as in one of 50,000, all connected.

Work is counted (proxies resolved, snapshots spliced, generator calls, messages, bytes) and asserted; seconds are
processor time, asserted as ratios within one run and against bounds several times what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from bench import policy_kinds
from bench.conftest import Record, Tell
from bench.regular_mesh import (
    CLIENTS,
    METADATA,
    Cost,
    RegularMesh,
    dataplane,
    fill,
    for_all,
    for_cell,
    for_inbounds,
    for_nobody,
)
from bench.test_generation import endpoint_set
from pytest_benchmark.fixture import BenchmarkFixture

from kumafast import garbage
from kumafast.generation.endpoints import lb_endpoint, load_assignment, order
from kumafast.generation.proxy import EndpointSet
from kumafast.resources import Dataplane, Mesh, Resource, Secret, catalog
from kumafast.snapshot import EndpointEntry, LoadAssignment
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.node import Node
from kumafast.store import Change

SMALL, LARGE = 1_000, 50_000
SIZES = (SMALL, 10_000, LARGE)

LOAD_S_MAX = 4.0
SNAPSHOTS_S_MAX = 25.0
PEAK_BYTES_MAX = 1.5e9
ENDPOINT_S_MAX = 0.005
GROWTH_MAX = 2.0

# The dataplane that changes; it reaches other services than its own.
NUMBER = 7

pytestmark = [pytest.mark.counted(seconds=50), pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, RegularMesh]]:
    """A running mesh of each size, the largest first so that its memory is measured alone."""
    folder = tmp_path_factory.mktemp("meshes")
    meshes: dict[int, RegularMesh] = {}
    # As `kumafast run` does.
    end = garbage.begin()
    for size in sorted(SIZES, reverse=True):
        path = folder / f"{size}.db"
        asyncio.run(fill(path, size))
        mesh = meshes[size] = RegularMesh(size)
        mesh.start(path)
        mesh.attach_sinks()
    yield meshes
    meshes.clear()
    end()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of change: what is written at a size, and what it costs at any."""

    after: Callable[[int], Resource | Change]
    resolved: int = 0
    spliced: int = 0
    generated: int = 0
    messages: int = 0
    before: Callable[[int], Resource | Change] = lambda size: dataplane(NUMBER, size)
    """What stood there, and stands there again afterwards."""


def _new(size: int) -> Dataplane:
    # An endpoint of a service without an Envoy of its own: nobody with its name is connected.
    return dataplane(NUMBER, size, host="10.200.200.200").model_copy(update={"name": "dp-new"})


def _gone(size: int) -> Change:
    return Change(_new(size).key, None)


def _retagged(key: str, value: str) -> Callable[[int], Dataplane]:
    return lambda size: dataplane(NUMBER, size, tags={**dataplane(NUMBER, size).inbounds[0].tags, key: value})


# Beside one snapshot for each of those affected there is a constant: the layers that are new.
KINDS: dict[str, Kind] = {
    "an endpoint comes": Kind(_new, spliced=CLIENTS, generated=1, messages=CLIENTS, before=_gone),
    "an endpoint goes": Kind(_gone, spliced=CLIENTS, generated=1, messages=CLIENTS, before=_new),
    # Its clients, and its own listener and cluster.
    "an address": Kind(
        lambda size: dataplane(NUMBER, size, host="10.200.200.200"), 1, CLIENTS, generated=2, messages=CLIENTS + 1
    ),
    "a health": Kind(lambda size: dataplane(NUMBER, size, state="NotReady"), 1, CLIENTS, generated=1, messages=CLIENTS),
    "a tag": Kind(_retagged("version", "v9"), 1, CLIENTS, generated=2, messages=CLIENTS + 1),
    "a label": Kind(
        lambda size: dataplane(NUMBER, size).model_copy(update={"labels": {"a": "b"}}),
        1,
        CLIENTS,
        generated=1,
        messages=CLIENTS,
    ),
    # The clients of both services; two sets of endpoints and an inbound.
    "a service": Kind(
        _retagged("kuma.io/service", "service-00020"), 1, 2 * CLIENTS, generated=3, messages=2 * CLIENTS + 1
    ),
    # The clients are resolved anew, as their cluster and listener are others: two layers for all of them.
    "a protocol": Kind(_retagged("kuma.io/protocol", "tcp"), CLIENTS + 1, generated=4, messages=3 * CLIENTS + 2),
    "outbounds": Kind(lambda size: dataplane(NUMBER, size, shift=1), 1, generated=5, messages=4),
    "equal content": Kind(lambda size: dataplane(NUMBER, size)),
    "a secret that nobody uses": Kind(
        lambda size: Secret(mesh="default", name="unused", data="eQ=="),
        before=lambda size: Secret(mesh="default", name="unused", data="eA=="),
    ),
    "a mesh": Kind(lambda size: Mesh(name="default", labels={"a": "b"}), before=lambda size: Mesh(name="default")),
}


@pytest.mark.gate
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_change_costs_the_same_work_in_every_mesh(meshes: dict[int, RegularMesh], kind: Kind) -> None:
    costs: dict[int, Cost] = {}
    for size, mesh in meshes.items():
        mesh.change(kind.before(size))
        costs[size] = mesh.change(kind.after(size))
        assert all(sink.is_synced() for sink in mesh.woken)
        mesh.change(dataplane(NUMBER, size), _gone(size), Mesh(name="default"))
    assert {size: cost.counts() for size, cost in costs.items()} == dict.fromkeys(
        SIZES, (kind.resolved, 0, kind.spliced, kind.generated, kind.messages)
    )
    assert len({cost.sizes() for cost in costs.values()}) == 1


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A kind of change of a policy: who is looked at anew, and what is generated for every ten of them."""

    after: Resource | Change
    share: int
    """One in so many dataplanes is affected; 0 for none."""
    before: tuple[Resource | Change, ...] = ()
    generated: int = 0
    messages: int = 3
    """For each of them: clusters, their endpoints once more since they warm anew, listeners."""
    alike: int = 50
    """How many are sent the very same clusters and listeners."""
    sizes: tuple[int, ...] = SIZES


_CELL_GONE = Change(for_cell(1).key, None)
_ALL_GONE = Change(for_all(1).key, None)
_INBOUNDS_GONE = Change(for_inbounds(1).key, None)

# Those that are alike share what is generated: an instance has the outbounds of the nine others of its service, and in
# the whole mesh those of 40 more. So 1 % has a cluster and a listener for each of the five outbounds of ten proxies.
POLICY_KINDS: dict[str, PolicyKind] = {
    "for 1 %, comes": PolicyKind(for_cell(3), share=100, generated=10, alike=10),
    "for 1 %, is edited": PolicyKind(for_cell(4), share=100, before=(for_cell(3),), generated=10, alike=10),
    "for 1 %, goes": PolicyKind(_CELL_GONE, share=100, before=(for_cell(3),), alike=10),
    "for 1 %, says what holds anyway": PolicyKind(for_cell(7), share=0),
    "for nobody": PolicyKind(for_nobody(3), share=0),
    "for all, is edited": PolicyKind(for_all(8), share=1, generated=2),
    "for all, goes": PolicyKind(_ALL_GONE, share=1, generated=2, sizes=SIZES[:-1]),
    "for all, comes": PolicyKind(for_all(8), share=1, before=(_ALL_GONE,), generated=2, sizes=SIZES[:-1]),
    # Every inbound has an address of its own, so here nothing is shared.
    "for all, about what comes in": PolicyKind(
        for_inbounds(9), share=1, generated=10, messages=1, alike=1, sizes=SIZES[:-1]
    ),
    "for all, with another label": PolicyKind(
        for_all(7).model_copy(update={"labels": {**for_all(7).labels, "a": "b"}}), share=0
    ),
}


@pytest.mark.gate
@pytest.mark.parametrize("kind", POLICY_KINDS.values(), ids=POLICY_KINDS)
def test_a_policy_costs_what_it_touches_in_every_mesh(
    meshes: dict[int, RegularMesh], kind: PolicyKind, tell: Tell
) -> None:
    bytes_each, seconds = set(), {}
    for size in kind.sizes:
        mesh = meshes[size]
        if kind.before:
            mesh.change(*kind.before)
        cost = mesh.change(kind.after)
        affected = size // kind.share if kind.share else 0
        assert all(sink.is_synced() for sink in mesh.woken)
        assert cost.counts() == (0, affected, 0, affected * kind.generated // 10, affected * kind.messages)
        assert cost.lists * kind.alike == affected * (1 if kind.messages == 1 else 2)
        if affected:
            bytes_each.add((cost.encoded_bytes / affected, cost.sent_bytes / affected))
        seconds[size] = (round(cost.reconcile_s * 1e3, 1), round(cost.stream_s * 1e3, 1))
        mesh.change(_CELL_GONE, _INBOUNDS_GONE, for_all(7))
    assert len(bytes_each) <= 1
    tell("reconcile_ms, stream_ms", seconds)


def test_every_kind_with_a_target_ref_has_an_edit() -> None:
    kinds = {kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and kind.policy.is_target_ref}
    assert kinds == policy_kinds.EDITS.keys()


@pytest.mark.gate
@pytest.mark.parametrize("kind", policy_kinds.EDITS)
def test_an_edit_of_each_kind_costs_what_it_touches_in_every_mesh(meshes: dict[int, RegularMesh], kind: str) -> None:
    edit = policy_kinds.EDITS[kind]
    before, after = policy_kinds.policy(kind, edit.before), policy_kinds.policy(kind, edit.after)
    bytes_each = set()
    for size, mesh in meshes.items():
        mesh.change(before)
        cost = mesh.change(after)
        assert all(sink.is_synced() for sink in mesh.woken)
        assert cost.counts() == edit.counts(size)
        bytes_each.add(tuple(each / edit.affected(size) for each in cost.sizes()))
        mesh.change(Change(after.key, None))
    assert len(bytes_each) == 1


@pytest.mark.gate
def test_a_node_that_connects_costs_the_same_work_in_every_mesh(meshes: dict[int, RegularMesh]) -> None:
    works = []
    for mesh in meshes.values():
        before = (mesh.reconciler.work.resolved, mesh.reconciler.work.spliced, mesh.reconciler.work.generated)
        mesh.change(_new(mesh.size))
        mesh.reconciler.connect("new", Node("default.dp-new", metadata=METADATA))
        after = (mesh.reconciler.work.resolved, mesh.reconciler.work.spliced, mesh.reconciler.work.generated)
        works.append([now - was for was, now in zip(before, after, strict=True)])
        mesh.reconciler.disconnect("new", "default.dp-new")
        mesh.change(_gone(mesh.size))
    # Its inbound is new, and the endpoints that its clients see; the rest of it the mesh has already.
    assert works == [[1, CLIENTS, 2]] * len(SIZES)


@pytest.mark.gate
@pytest.mark.flaky(reruns=2)
def test_an_endpoint_costs_as_much_processor_time_in_every_mesh(
    meshes: dict[int, RegularMesh], tell: Tell, record: Record
) -> None:
    costs = {size: _typical(mesh) for size, mesh in meshes.items()}
    tell("endpoint_ms", {size: round(cost * 1e3, 2) for size, cost in costs.items()})
    record(**{f"endpoint_of_{size}_cpu_s": cost for size, cost in costs.items()})
    assert costs[LARGE] <= GROWTH_MAX * costs[SMALL]


def _typical(mesh: RegularMesh) -> float:
    """Processor seconds of one endpoint that comes, its clients' streams included."""
    seconds = []
    for number in range(40):
        new = dataplane(number, mesh.size, host="10.200.200.200").model_copy(update={"name": "dp-new"})
        cost = mesh.change(new)
        seconds.append(cost.reconcile_s + cost.stream_s)
        mesh.change(Change(new.key, None))
    return sorted(seconds)[len(seconds) // 2]


@pytest.mark.informational
def test_an_endpoint_of_50k_is_quick(meshes: dict[int, RegularMesh], tell: Tell) -> None:
    cost = _typical(meshes[LARGE])
    tell("endpoint_of_50k_ms", round(cost * 1e3, 2))
    assert cost <= ENDPOINT_S_MAX


@pytest.mark.informational
def test_a_cold_start_of_50k_is_quick(meshes: dict[int, RegularMesh]) -> None:
    assert meshes[LARGE].load_s <= LOAD_S_MAX
    assert meshes[LARGE].snapshots_s <= SNAPSHOTS_S_MAX


@pytest.mark.gate
def test_a_cold_start_of_50k_fits(meshes: dict[int, RegularMesh], tell: Tell) -> None:
    mesh = meshes[LARGE]
    tell("load_s", round(mesh.load_s, 2))
    tell("snapshots_s", round(mesh.snapshots_s, 2))
    tell("peak_mb", round(mesh.peak_bytes / 1e6))
    tell("bytes_per_proxy", round(mesh.bytes_per_proxy))
    assert mesh.peak_bytes <= PEAK_BYTES_MAX


@pytest.mark.informational
@pytest.mark.parametrize("size", [10, 1_000, 10_000])
@pytest.mark.parametrize("way", ["spliced", "by protobuf"])
def test_one_endpoint_of_many(benchmark: BenchmarkFixture, size: int, way: str) -> None:
    """One endpoint goes and comes: by its bytes, and as it would be with a message for each endpoint."""
    part = endpoint_set(size)
    part = EndpointSet(part.cluster_name, tuple(sorted(part.endpoints, key=order)))
    assignment = LoadAssignment(part.cluster_name)
    entries = [
        EndpointEntry.of(zone=endpoint.zone, order=order(endpoint), lb_endpoint=lb_endpoint(endpoint))
        for endpoint in part.endpoints
    ]
    assignment.alter([], entries)
    one = entries[size // 2]

    def splice() -> bytes:
        assignment.alter([one], [])
        assignment.alter([], [one])
        (resource,) = assignment.layer()
        return resource.body

    body = benchmark(splice if way == "spliced" else lambda: encode(load_assignment(part)).body)
    benchmark.extra_info["bytes"] = len(body)
    assert body == encode(load_assignment(part)).body
