"""How near endpoints are, in the pipeline: each client has them as it sees them, and shares that with its like."""

from __future__ import annotations

import asyncio
from typing import Any

from envoy.config.endpoint.v3 import endpoint_pb2
from tests.mesh_policies import mesh_policy, to_service
from tests.pipeline import HERE, HTTP, Pipeline, dataplane, service, with_new_mesh

from kumafast.resources import Resource
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import ENDPOINT
from kumafast.store import MemoryStore, Put

WEST = {"kuma.io/zone": "west"}
NEAR = {"localZone": {"affinityTags": [{"key": "rack"}, {"key": "row"}]}}


def instance(number: int, **tags: str) -> Resource:
    return dataplane(f"backend-{number}", tags={**service("backend"), **HTTP, **tags}, address=f"10.0.0.{number + 1}")


def client(name: str, **tags: str) -> Resource:
    return dataplane(name, tags={**service("web"), **HERE, **tags}, reaches=[service("backend")])


def strategy(**awareness: Any) -> Resource:
    return mesh_policy("MeshLoadBalancingStrategy", "lb", to=[to_service("backend", {"localityAwareness": awareness})])


async def mesh(*clients: Resource) -> MemoryStore:
    store = await with_new_mesh()
    instances = [
        instance(0, **HERE, rack="1"),
        instance(1, **HERE, rack="2"),
        instance(2, **WEST),
        instance(3, **HERE, row="a"),
    ]
    await store.write([Put(each) for each in (*instances, *clients)])
    return store


def places(snapshot: Snapshot) -> dict[str, tuple[str, str, int, int]]:
    """The zone, its part, the priority and the weight of where each endpoint stands."""
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot.resources(ENDPOINT)["backend"].body)
    return {
        endpoint.endpoint.address.socket_address.address: (
            locality.locality.zone,
            locality.locality.sub_zone,
            locality.priority,
            locality.load_balancing_weight.value,
        )
        for locality in assignment.endpoints
        for endpoint in locality.lb_endpoints
    }


def test_each_client_sees_what_is_near_to_it_and_the_deletion_restores_what_was() -> None:
    async def main() -> None:
        store = await mesh(client("web-1", rack="1", row="a"), client("web-2", rack="2"), client("web-3"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web-1", "web-2", "web-3")
            before = {name: pipeline.snapshot(name) for name in ("web-1", "web-2", "web-3")}
            policy = strategy(**NEAR)
            await store.put(policy)
            await pipeline.settle()
            rest = ("default", "", 0, 1)
            first, row = ("default", "rack=1", 0, 90), ("default", "row=a", 0, 9)
            # What is in another zone is nobody's, as nothing is said of other zones.
            assert places(pipeline.snapshot("web-1")) == {"10.0.0.1": first, "10.0.0.2": rest, "10.0.0.4": row}
            second = ("default", "rack=2", 0, 90)
            assert places(pipeline.snapshot("web-2")) == {"10.0.0.1": rest, "10.0.0.2": second, "10.0.0.4": rest}
            assert set(places(pipeline.snapshot("web-3")).values()) == {rest}
            # Endpoints that come and go do so for each as it sees them.
            await store.put(instance(4, **HERE, rack="2"))
            await store.delete(instance(0).key)
            await pipeline.settle()
            assert places(pipeline.snapshot("web-1")) == {"10.0.0.2": rest, "10.0.0.4": row, "10.0.0.5": rest}
            assert places(pipeline.snapshot("web-2"))["10.0.0.5"] == second
            await store.write([Put(instance(0, **HERE, rack="1"))])
            await store.delete(instance(4).key)
            await store.delete(policy.key)
            await pipeline.settle()
            assert all(pipeline.snapshot(name).has_content_of(was) for name, was in before.items())

    asyncio.run(main())


def test_other_zones_come_after_all_of_the_own_or_as_it_is_said() -> None:
    async def main() -> None:
        store = await mesh(client("web-1"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web-1")
            await store.put(strategy())
            await pipeline.settle()
            assert places(pipeline.snapshot("web-1"))["10.0.0.3"] == ("west", "", 1, 0)
            await store.put(strategy(disabled=True))
            await pipeline.settle()
            assert places(pipeline.snapshot("web-1"))["10.0.0.3"] == ("west", "", 0, 0)
            rules = [
                {"from": {"zones": ["east"]}, "to": {"type": "Any"}},
                {"to": {"type": "AnyExcept", "zones": ["west"]}},
                {"to": {"type": "Only", "zones": ["west"]}},
            ]
            await store.put(strategy(crossZone={"failover": rules, "failoverThreshold": {"percentage": 70}}))
            await pipeline.settle()
            assert places(pipeline.snapshot("web-1"))["10.0.0.3"] == ("west", "", 3, 0)
            body = pipeline.snapshot("web-1").resources(ENDPOINT)["backend"].body
            assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
            assert assignment.policy.overprovisioning_factor.value == 142

    asyncio.run(main())


def test_clients_that_see_alike_share_what_an_endpoint_costs() -> None:
    async def main() -> None:
        generated = []
        for size in (4, 40):
            clients = [client(f"web-{number}", rack=str(number % 2)) for number in range(size)]
            store = await mesh(*clients)
            await store.put(strategy(**NEAR))
            async with Pipeline(store) as pipeline:
                pipeline.connect(*(each.name for each in clients))
                work = pipeline.reconciler.work
                before = (work.generated, work.resolved, work.spliced)
                await store.put(instance(5, **HERE, rack="1"))
                await pipeline.settle()
                generated.append(work.generated - before[0])
                assert (work.resolved, work.spliced) == (before[1], before[2] + size)
        # One assignment for each rack.
        assert generated == [2, 2]

    asyncio.run(main())
