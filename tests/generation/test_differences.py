"""In what resources differ, as people are told; and that what is told is all of it."""

from __future__ import annotations

import random
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from kumafast.generation.differences import Difference, as_json, differences

PREFIX = "type.googleapis.com/"


def told(kind: type[Message], before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    bodies = [ParseDict(fields, kind()).SerializeToString() for fields in (before, after)]
    return [(each.path, each.before, each.after) for each in differences(PREFIX + kind.DESCRIPTOR.full_name, *bodies)]


def test_fields_are_named_as_in_json() -> None:
    before = {
        "name": "a",
        "connectTimeout": "5s",
        "type": "EDS",
        "circuitBreakers": {"thresholds": [{"maxRetries": 3}]},
    }
    after = {
        "name": "a",
        "connectTimeout": "10s",
        "type": "STATIC",
        "circuitBreakers": {"thresholds": [{"maxRetries": 4}]},
    }
    assert told(cluster_pb2.Cluster, before, after) == [
        ("type", "EDS", "STATIC"),
        ("connectTimeout", "5s", "10s"),
        ("circuitBreakers.thresholds[0].maxRetries", 3, 4),
    ]
    assert told(cluster_pb2.Cluster, before, before) == []


def test_extensions_are_looked_into() -> None:
    def listener(cluster: str) -> dict[str, Any]:
        proxy = {"@type": PREFIX + tcp_proxy_pb2.TcpProxy.DESCRIPTOR.full_name, "cluster": cluster, "statPrefix": "x"}
        return {"name": "l", "filterChains": [{"filters": [{"name": "envoy.tcp", "typedConfig": proxy}]}]}

    assert told(listener_pb2.Listener, listener("a"), listener("b")) == [
        ("filterChains[0].filters[envoy.tcp].typedConfig.cluster", "a", "b")
    ]


def test_one_endpoint_of_many_is_one_difference() -> None:
    def assignment(hosts: list[int]) -> dict[str, Any]:
        endpoints = [
            {"endpoint": {"address": {"socketAddress": {"address": f"10.0.{n >> 8}.{n & 255}", "portValue": 80}}}}
            for n in hosts
        ]
        return {"clusterName": "a", "endpoints": [{"lbEndpoints": endpoints}]}

    many = list(range(2_000))
    [(path, before, after)] = told(
        endpoint_pb2.ClusterLoadAssignment, assignment(many), assignment([n for n in many if n != 700])
    )
    assert (path, after) == ("endpoints[0].lbEndpoints[10.0.2.188:80]", None)
    assert before["endpoint"]["address"]["socketAddress"]["address"] == "10.0.2.188"


def test_routes_and_virtual_hosts_go_by_their_place() -> None:
    def routes(*timeouts: str) -> dict[str, Any]:
        entries = [
            {"name": f"digest-{timeout}", "match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": timeout}}
            for timeout in timeouts
        ]
        return {"name": "r", "virtualHosts": [{"name": "web", "domains": ["*"], "routes": entries}]}

    found = told(route_pb2.RouteConfiguration, routes("1s", "2s"), routes("1s", "3s"))
    assert [(path, before is None) for path, before, _ in found] == [
        ("virtualHosts[0].routes[1]", False),
        ("virtualHosts[0].routes[1]", True),
    ]


def test_what_comes_into_the_middle_is_told_alone() -> None:
    def cluster(*values: str) -> dict[str, Any]:
        return {
            "name": "a",
            "filters": [{"name": "same"}, {"name": "same"}],
            "metadata": {"filterMetadata": {"m": {"k": list(values)}}},
        }

    [(path, before, after)] = told(cluster_pb2.Cluster, cluster("a", "b"), cluster("a", "x", "b"))
    assert path == "metadata.filterMetadata[m]"
    assert (before, after) == ({"k": ["a", "b"]}, {"k": ["a", "x", "b"]})

    def chains(*ports: int) -> dict[str, Any]:
        return {"name": "l", "filterChains": [{"filterChainMatch": {"destinationPort": port}} for port in ports]}

    assert told(listener_pb2.Listener, chains(1, 2, 3), chains(1, 9, 2, 3)) == [
        ("filterChains[1]", None, {"filterChainMatch": {"destinationPort": 9}})
    ]


def test_nothing_is_told_of_what_secrets_hold() -> None:
    one = secret_pb2.Secret(name="a", tls_certificate={"private_key": {"inline_string": "hush"}})
    other = secret_pb2.Secret(name="a", tls_certificate={"private_key": {"inline_string": "quiet"}})
    type_url = PREFIX + one.DESCRIPTOR.full_name
    assert differences(type_url, one.SerializeToString(), other.SerializeToString()) == ()
    assert as_json(type_url, one.SerializeToString()) == {}


def test_nothing_is_told_of_keys_within_other_resources() -> None:
    def cluster(key: str, chain: str = "c") -> dict[str, Any]:
        certificate = {"certificateChain": {"inlineString": chain}, "privateKey": {"inlineString": key}}
        context = {
            "@type": PREFIX + tls_pb2.UpstreamTlsContext.DESCRIPTOR.full_name,
            "commonTlsContext": {"tlsCertificates": [certificate]},
        }
        return {"name": "a", "transportSocket": {"name": "envoy.tls", "typedConfig": context}}

    path = "transportSocket.typedConfig.commonTlsContext.tlsCertificates[0].privateKey"
    assert told(cluster_pb2.Cluster, cluster("hush"), cluster("quiet")) == [(path, "[redacted]", "another [redacted]")]
    [(_, before, after)] = told(cluster_pb2.Cluster, {"name": "a"}, cluster("hush"))
    assert before is None
    assert "hush" not in repr(after)
    assert after["typedConfig"]["commonTlsContext"]["tlsCertificates"] == [{"certificateChain": {"inlineString": "c"}}]
    body = ParseDict(cluster("hush"), cluster_pb2.Cluster()).SerializeToString()
    shown = as_json(PREFIX + cluster_pb2.Cluster.DESCRIPTOR.full_name, body)
    assert "hush" not in repr(shown)
    assert "hush" in cluster_pb2.Cluster.FromString(body).transport_socket.typed_config.value.decode("latin1")


def test_what_cannot_be_read_differs_as_a_whole() -> None:
    assert differences("type.googleapis.com/no.such.Type", b"ab", b"c") == (Difference("", {"bytes": 2}, {"bytes": 1}),)
    assert as_json("type.googleapis.com/no.such.Type", b"ab") == {"bytes": 2}


def random_cluster(rng: random.Random) -> dict[str, Any]:
    cluster: dict[str, Any] = {"name": "a"}
    if rng.random() < 0.5:
        cluster["connectTimeout"] = f"{rng.randrange(3)}s"
    if rng.random() < 0.5:
        cluster["circuitBreakers"] = {"thresholds": [{"maxRetries": rng.randrange(3)} for _ in range(rng.randrange(4))]}
    if rng.random() < 0.5:
        names = rng.sample("abcd", rng.randrange(4))
        cluster["filters"] = [{"name": name} for name in names]
    if rng.random() < 0.5:
        cluster["metadata"] = {"filterMetadata": {key: {"k": rng.randrange(2)} for key in rng.sample("xyz", 2)}}
    return cluster


def test_equal_resources_and_only_these_have_no_difference() -> None:
    rng = random.Random(8)
    for _ in range(2_000):
        one, other = (ParseDict(random_cluster(rng), cluster_pb2.Cluster()) for _ in range(2))
        bodies = [each.SerializeToString(deterministic=True) for each in (one, other)]
        found = differences(PREFIX + one.DESCRIPTOR.full_name, *bodies)
        assert (found == ()) == (one == other)
        assert all(each.before != each.after for each in found)
