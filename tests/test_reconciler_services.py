"""Services in the pipeline: who refers to one follows its instances and its definition, and nobody else hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from tests.pipeline import Pipeline, mesh_timeout, names, put_mesh, request_timeout, secured, with_new_mesh

from kumafast.resources import Dataplane, Resource, Secret, parse, secret_data, with_defaults
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore, Put

BACKEND = "default_backend__default_msvc_80"
APP = {"dataplaneTags": {"app": "backend"}}
LISTENING = "outbound:127.0.0.1:10000"


def written(kind: str, resource: str, with_labels: dict[str, str] | None = None, /, **spec: Any) -> Resource:
    """A resource as the API stores it."""
    document = {"type": kind, "mesh": "default", "name": resource, "labels": with_labels or {}, "spec": spec}
    return with_defaults(parse(document), zone="default")


def mesh_service(
    name: str = "backend", *ports: dict[str, Any], labels: dict[str, str] | None = None, **selector: Any
) -> Resource:
    ports = ports or ({"port": 80, "targetPort": 8080, "appProtocol": "http"},)
    return written("MeshService", name, labels, selector=selector or APP, ports=list(ports))


def instance(name: str, *inbounds: dict[str, Any], labels: dict[str, str] | None = None, **over: Any) -> Dataplane:
    tags = {"kuma.io/service": "legacy", "app": "backend"}
    inbound = list(inbounds) or [{"port": 8080, "tags": tags, **over}]
    networking = {"address": f"10.0.1.{name.rpartition('-')[2]}", "inbound": inbound}
    resource = parse(
        {"type": "Dataplane", "mesh": "default", "name": name, "labels": labels or {}, "networking": networking}
    )
    assert isinstance(resource, Dataplane)
    return resource


def client(name: str, *refs: dict[str, Any]) -> Dataplane:
    outbound = [{"port": 10_000 + number, "backendRef": ref} for number, ref in enumerate(refs)]
    inbound = [{"port": 9000, "tags": {"kuma.io/service": name}}]
    networking = {"address": "10.0.0.1", "inbound": inbound, "outbound": outbound}
    resource = parse({"type": "Dataplane", "mesh": "default", "name": name, "networking": networking})
    assert isinstance(resource, Dataplane)
    return resource


def by_name(name: str = "backend", port: int = 80, kind: str = "MeshService") -> dict[str, Any]:
    return {"kind": kind, "name": name, **({"port": port} if port else {})}


def by_labels(labels: dict[str, str], port: int = 80, kind: str = "MeshService") -> dict[str, Any]:
    return {"kind": kind, "labels": labels, "port": port}


def run(story: Callable[[Pipeline, MemoryStore], Coroutine[Any, Any, None]], *resources: Resource) -> None:
    """Play a story in a mesh with these resources."""

    async def main() -> None:
        store = await with_new_mesh()
        for resource in resources:
            await store.put(resource)
        async with Pipeline(store) as pipeline:
            await story(pipeline, store)

    asyncio.run(main())


def endpoints(snapshot: Snapshot, cluster: str = BACKEND) -> list[str]:
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(snapshot.resources(ENDPOINT)[cluster].body)
    sockets = (
        each.endpoint.address.socket_address for locality in assignment.endpoints for each in locality.lb_endpoints
    )
    return [f"{socket.address}:{socket.port_value}" for socket in sockets]


def cluster(snapshot: Snapshot, name: str = BACKEND) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster.FromString(snapshot.resources(CLUSTER)[name].body)


def tls_of(found: cluster_pb2.Cluster) -> tls_pb2.UpstreamTlsContext:
    context = tls_pb2.UpstreamTlsContext()
    found.transport_socket.typed_config.Unpack(context)
    return context


def accepted(found: cluster_pb2.Cluster) -> list[str]:
    """Whose certificates a client takes."""
    validation = tls_of(found).common_tls_context.combined_validation_context.default_validation_context
    return [each.matcher.exact for each in validation.match_typed_subject_alt_names]


def manager(snapshot: Snapshot, name: str = LISTENING) -> http_connection_manager_pb2.HttpConnectionManager:
    listener = listener_pb2.Listener.FromString(snapshot.resources(LISTENER)[name].body)
    found = http_connection_manager_pb2.HttpConnectionManager()
    listener.filter_chains[0].filters[0].typed_config.Unpack(found)
    return found


def test_a_reference_leads_to_the_instances_by_port() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        snapshot = pipeline.snapshot("web")
        assert endpoints(snapshot) == ["10.0.1.1:8080", "10.0.1.2:8080"]
        assert cluster(snapshot).type == cluster_pb2.Cluster.EDS
        found = manager(snapshot)
        assert found.route_config.name == f"outbound:{BACKEND}"
        assert found.stat_prefix == BACKEND
        [host] = found.route_config.virtual_hosts
        assert (host.name, host.routes[0].route.cluster) == (BACKEND, BACKEND)
        await store.put(instance("b-3"))
        await store.put(instance("b-1", state="NotReady"))
        await store.put(instance("b-4", port=8081))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web")) == ["10.0.1.2:8080", "10.0.1.3:8080"]

    run(story, mesh_service(), instance("b-1"), instance("b-2"), client("web", by_name()))


def test_an_instance_is_chosen_by_one_inbound_and_serves_with_each_that_has_the_port() -> None:
    chosen = {"port": 8080, "tags": {"kuma.io/service": "a", "app": "backend"}}
    other = {"port": 9090, "name": "admin", "tags": {"kuma.io/service": "b"}}
    # All tags are to be on one inbound.
    split = [
        {"port": 9090, "tags": {"kuma.io/service": "a"}},
        {"port": 9091, "tags": {"kuma.io/service": "b", "x": "y"}},
    ]

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert endpoints(pipeline.snapshot("web"), "default_backend__default_msvc_81") == ["10.0.1.1:9090"]
        assert endpoints(pipeline.snapshot("web"), "default_backend__default_msvc_82") == ["10.0.1.1:9090"]
        await store.put(mesh_service("backend", *ports, dataplaneTags={"kuma.io/service": "a", "x": "y"}))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web"), "default_backend__default_msvc_81") == []

    ports = ({"port": 81, "targetPort": 9090}, {"port": 82, "targetPort": "admin"})
    refs = (by_name(port=81), by_name(port=82))
    run(
        story,
        mesh_service("backend", *ports),
        instance("b-1", chosen, other),
        instance("b-2", *split),
        client("web", *refs),
    )


def test_instances_by_name_and_by_labels() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert endpoints(pipeline.snapshot("web"), "default_one__default_msvc_80") == ["10.0.1.1:8080"]
        assert endpoints(pipeline.snapshot("web"), "default_team__default_msvc_80") == ["10.0.1.2:8080"]
        await store.put(instance("b-1", labels={"team": "x"}))
        await store.put(instance("b-2"))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web"), "default_one__default_msvc_80") == ["10.0.1.1:8080"]
        assert endpoints(pipeline.snapshot("web"), "default_team__default_msvc_80") == ["10.0.1.1:8080"]

    run(
        story,
        mesh_service("one", dataplaneRef={"name": "b-1"}),
        mesh_service("team", dataplaneLabels={"matchLabels": {"team": "x"}}),
        mesh_service("nobody", dataplaneTags={}),
        instance("b-1"),
        instance("b-2", labels={"team": "x"}),
        client("web", by_name("one"), by_name("team"), by_name("nobody")),
    )


def test_a_service_comes_changes_and_goes_for_those_who_refer_to_it_alone() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web", "other")
        before, others = pipeline.snapshot("web"), pipeline.snapshot("other")
        assert names(before, LISTENER) == {"inbound:10.0.0.1:9000"}
        await store.put(mesh_service())
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web")) == ["10.0.1.1:8080"]
        await store.put(mesh_service("backend", {"port": 80, "targetPort": 8081}))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web")) == ["10.0.1.2:8081"]
        # Another port is asked for than there is.
        await store.put(mesh_service("backend", {"port": 81, "targetPort": 8081}))
        await pipeline.settle()
        assert pipeline.snapshot("web").has_content_of(before)
        await store.put(mesh_service())
        await store.delete(mesh_service().key)
        await pipeline.settle()
        assert pipeline.snapshot("web").has_content_of(before)
        assert pipeline.snapshot("other") is others

    other = mesh_service("other")
    run(story, other, instance("b-1"), instance("b-2", port=8081), client("web", by_name()), client("other"))


def test_a_reference_by_labels_leads_to_the_oldest_service_that_has_them() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert not pipeline.snapshot("web").resources(ENDPOINT)
        await store.put(mesh_service("second", labels={"team": "x", "tier": "1"}))
        await pipeline.settle()
        assert set(pipeline.snapshot("web").resources(ENDPOINT)) == {"default_second__default_msvc_80"}
        await store.put(mesh_service("first", labels={"team": "x"}))
        await pipeline.settle()
        assert set(pipeline.snapshot("web").resources(ENDPOINT)) == {"default_second__default_msvc_80"}
        await store.put(mesh_service("second"))
        await pipeline.settle()
        assert set(pipeline.snapshot("web").resources(ENDPOINT)) == {"default_first__default_msvc_80"}
        await store.put(instance("b-2"))
        await pipeline.settle()
        found = endpoints(pipeline.snapshot("web"), "default_first__default_msvc_80")
        assert found == ["10.0.1.1:8080", "10.0.1.2:8080"]
        await store.put(client("web"))
        await pipeline.settle()
        assert not pipeline.snapshot("web").resources(ENDPOINT)

    run(story, instance("b-1"), client("web", by_labels({"team": "x"})))


def test_a_service_of_several_zones_is_all_services_with_its_labels() -> None:
    multi = written(
        "MeshMultiZoneService",
        "all",
        selector={"meshService": {"matchLabels": {"app": "x"}}},
        ports=[{"port": 80, "appProtocol": "http"}],
    )
    all_ = "default_all__default_mzsvc_80"

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert endpoints(pipeline.snapshot("web"), all_) == ["10.0.1.1:8080"]
        await store.put(mesh_service("two", labels={"app": "x"}, dataplaneRef={"name": "b-2"}))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web"), all_) == ["10.0.1.1:8080", "10.0.1.2:8080"]
        await store.put(mesh_service("one", dataplaneRef={"name": "b-1"}))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web"), all_) == ["10.0.1.2:8080"]
        await store.delete(multi.key)
        await pipeline.settle()
        assert not pipeline.snapshot("web").resources(CLUSTER).keys() & {all_}

    one = mesh_service("one", labels={"app": "x"}, dataplaneRef={"name": "b-1"})
    run(story, multi, one, instance("b-1"), instance("b-2"), client("web", by_name("all", kind="MeshMultiZoneService")))


def test_clients_take_the_certificates_of_those_who_are_instances() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        found = cluster(pipeline.snapshot("web"))
        assert tls_of(found).sni == "a601e0c00295a9fbe.backend.80.default.ms"
        assert accepted(found) == ["spiffe://default/legacy"]
        twice = {"port": 8080, "tags": {"kuma.io/service": "newer", "app": "backend"}}
        await store.put(instance("b-2", twice, {"port": 9, "tags": {"kuma.io/service": "aside"}}))
        await pipeline.settle()
        taken = ["spiffe://default/aside", "spiffe://default/legacy", "spiffe://default/newer"]
        assert accepted(cluster(pipeline.snapshot("web"))) == taken
        await store.delete(instance("b-1").key)
        await store.delete(instance("b-2").key)
        await pipeline.settle()
        assert accepted(cluster(pipeline.snapshot("web"))) == ["spiffe://default/backend"]

    async def main() -> None:
        store = await with_new_mesh()
        await put_mesh(store, secured())
        for resource in (mesh_service(), instance("b-1"), client("web", by_name())):
            await store.put(resource)
        async with Pipeline(store) as pipeline:
            await story(pipeline, store)

    asyncio.run(main())


PORT = {"port": 80, "targetPort": 8080, "appProtocol": "http", "name": "http"}
MEANT: list[dict[str, Any]] = [
    {"name": "backend"},
    {"name": "backend", "sectionName": "http"},
    {"labels": {"app": "x"}},
]
ANOTHER: list[dict[str, Any]] = [
    {"name": "legacy"},
    {"name": "backend", "sectionName": "grpc"},
    {"labels": {"app": "y"}},
]


def test_a_policy_is_for_a_service_by_its_name_port_or_labels() -> None:
    def to(limit: str, **ref: Any) -> Resource:
        default = {"http": {"requestTimeout": limit}}
        return mesh_timeout(to=[{"targetRef": {"kind": "MeshService", **ref}, "default": default}])

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        for number, ref in enumerate(MEANT, 1):
            await store.put(to(f"{number}s", **ref))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")).total_seconds() == number
        # Another service, another port, other labels, and a service by its tag: it is as if nothing was said.
        for ref in ANOTHER:
            await store.put(to("4s", **ref))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")).total_seconds() == 15
        await store.put(mesh_service("backend", PORT, labels={"app": "y"}))
        await pipeline.settle()
        assert request_timeout(pipeline.snapshot("web")).total_seconds() == 4

    run(story, mesh_service("backend", PORT, labels={"app": "x"}), instance("b-1"), client("web", by_name()))


def test_what_is_said_of_a_service_outweighs_what_is_said_of_all_by_a_policy_of_a_name_before() -> None:
    everything = mesh_timeout(
        "aaa", to=[{"targetRef": {"kind": "Mesh"}, "default": {"http": {"requestTimeout": "9s"}}}]
    )
    one: dict[str, Any] = {
        "targetRef": {"kind": "MeshService", "name": "backend"},
        "default": {"http": {"requestTimeout": "2s"}},
    }
    port = {
        **one,
        "targetRef": {**one["targetRef"], "sectionName": "80"},
        "default": {"http": {"requestTimeout": "1s"}},
    }

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert request_timeout(pipeline.snapshot("web")).total_seconds() == 2
        await store.put(mesh_timeout("zzz", to=[port]))
        await pipeline.settle()
        assert request_timeout(pipeline.snapshot("web")).total_seconds() == 1

    run(story, everything, mesh_timeout("bbb", to=[one]), mesh_service(), instance("b-1"), client("web", by_name()))


OUTSIDE = "default_example__default_extsvc_443"


def outside(protocol: str = "http", tls: dict[str, Any] | None = None, *endpoints: dict[str, Any]) -> Resource:
    where = list(endpoints) or [{"address": "example.com", "port": 8443}, {"address": "192.0.2.1", "port": 443}]
    match = {"port": 443, "protocol": protocol}
    spec: dict[str, Any] = {"match": match, "endpoints": where, **({"tls": tls} if tls else {})}
    return written("MeshExternalService", "example", **spec)


def test_a_service_outside_is_reached_where_it_is() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        found = cluster(pipeline.snapshot("web"), OUTSIDE)
        assert found.type == cluster_pb2.Cluster.STRICT_DNS
        assert [len(locality.lb_endpoints) for locality in found.load_assignment.endpoints] == [2]
        route = manager(pipeline.snapshot("web")).route_config.virtual_hosts[0].routes[0].route
        assert route.auto_host_rewrite.value
        assert not pipeline.snapshot("web").resources(ENDPOINT)
        ranked = ({"address": "192.0.2.2", "port": 1, "priority": 7}, {"address": "192.0.2.1", "port": 1})
        await store.put(outside("tcp", None, *ranked))
        await pipeline.settle()
        found = cluster(pipeline.snapshot("web"), OUTSIDE)
        addresses = [each.lb_endpoints[0].endpoint.address for each in found.load_assignment.endpoints]
        assert [each.socket_address.address for each in addresses] == ["192.0.2.1", "192.0.2.2"]
        assert [each.priority for each in found.load_assignment.endpoints] == [0, 1]
        # Another port is asked for than there is.
        await store.put(client("web", by_name("example", 444, kind="MeshExternalService")))
        await pipeline.settle()
        assert names(pipeline.snapshot("web"), CLUSTER) == {"localhost:9000"}

    run(story, outside(), client("web", by_name("example", 0, kind="MeshExternalService")))


def test_a_service_outside_is_taken_for_what_its_certificate_says() -> None:
    def secret(content: str) -> Secret:
        return Secret(mesh="default", name="ca", data=secret_data(content.encode()))

    names_ = [{"type": "Exact", "value": "a.example"}, {"type": "Prefix", "value": "spiffe://b/"}]
    verification = {"caCert": {"secret": "ca"}, "serverName": "asked.example", "subjectAltNames": names_}
    version = {"min": "TLS12", "max": "TLS13"}
    tls = {"enabled": True, "version": version, "verification": verification, "allowRenegotiation": True}

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        # Without its authority it has no endpoints, rather than any that says it is one.
        assert not cluster(pipeline.snapshot("web"), OUTSIDE).load_assignment.endpoints
        await store.put(secret("authority"))
        await pipeline.settle()
        context = tls_of(cluster(pipeline.snapshot("web"), OUTSIDE))
        assert (context.sni, context.allow_renegotiation) == ("asked.example", True)
        parameters = context.common_tls_context.tls_params
        assert (parameters.tls_minimum_protocol_version, parameters.tls_maximum_protocol_version) == (3, 4)
        validation = context.common_tls_context.validation_context
        assert validation.trusted_ca.inline_bytes == b"authority"
        found = [
            (each.san_type, each.matcher.exact, each.matcher.prefix)
            for each in validation.match_typed_subject_alt_names
        ]
        assert found == [(2, "a.example", ""), (3, "", "spiffe://b/")]
        await store.put(secret("other"))
        await pipeline.settle()
        context = tls_of(cluster(pipeline.snapshot("web"), OUTSIDE))
        assert context.common_tls_context.validation_context.trusted_ca.inline_bytes == b"other"
        for mode, authority, count in (("SkipSAN", b"other", 0), ("SkipCA", b"", 0), ("SkipAll", b"", 0)):
            await store.put(outside("http", {**tls, "verification": {**verification, "mode": mode}}))
            await pipeline.settle()
            validation = tls_of(cluster(pipeline.snapshot("web"), OUTSIDE)).common_tls_context.validation_context
            assert validation.trusted_ca.inline_bytes == authority
            assert len(validation.match_typed_subject_alt_names) == count

    run(
        story,
        outside("http", tls, {"address": "e.example", "port": 443}),
        client("web", by_name("example", 443, "MeshExternalService")),
    )


def test_one_more_service_among_ten_thousand_costs_its_own_change() -> None:
    """A sidecar that refers to five gets five, and hears of no other."""

    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        pipeline.connect("web")
        assert len(pipeline.snapshot("web").resources(ENDPOINT)) == 5
        work = pipeline.reconciler.work
        before = (work.resolved, work.rebound, work.spliced, work.generated)
        await store.put(mesh_service("one-more", dataplaneRef={"name": "b-1"}))
        await pipeline.settle()
        assert (work.resolved, work.rebound, work.spliced, work.generated) == before
        # What one of the five has is a cluster, its endpoints and a listener.
        await store.put(mesh_service("s-1", {"port": 80, "targetPort": 9}, dataplaneRef={"name": "b-1"}))
        await pipeline.settle()
        assert (work.resolved - before[0], work.rebound - before[1]) == (1, 0)
        assert work.generated - before[3] <= 3

    async def main() -> None:
        store = await with_new_mesh()
        services = [mesh_service(f"s-{number}", dataplaneRef={"name": f"b-{number}"}) for number in range(10_000)]
        for resource in (instance("b-1"), client("web", *(by_name(f"s-{number}") for number in range(5)))):
            await store.put(resource)
        await store.write([Put(each) for each in services])
        async with Pipeline(store) as pipeline:
            await story(pipeline, store)

    asyncio.run(main())
