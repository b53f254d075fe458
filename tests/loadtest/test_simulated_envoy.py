"""A simulated Envoy asks and acknowledges in Envoy's order, remembers what it holds, counts what was for nothing."""

from __future__ import annotations

from collections.abc import Iterable

from bench.real_wires.envoy_node import described, with_node
from bench.real_wires.simulated_envoy import Facts, Received, SimulatedEnvoy
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast._core import digest
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

NODE = described({"features": ["feature-reuse-port"]})


class Conversation:
    """An Envoy with what it has said and been told."""

    def __init__(self) -> None:
        self.received = Received()
        self.told: list[tuple[str, str, str, float]] = []
        self.envoy = SimulatedEnvoy("default.dp-1", node=NODE, received=self.received, arrived=self._arrived)
        self._nonce = 0

    def _arrived(self, node_id: str, type_url: str, name: str, facts: Facts, at: float) -> None:
        self.told.append((node_id, type_url, name, at))

    def open(self) -> list[discovery_pb2.DeltaDiscoveryRequest]:
        return parsed(self.envoy.opened())

    def respond(
        self, type_url: str, bodies: dict[str, bytes], removed: Iterable[str] = (), *, version: str | None = None
    ) -> list[discovery_pb2.DeltaDiscoveryRequest]:
        """Send a response; what the Envoy says to that, of which the first must be the acknowledgement."""
        self._nonce += 1
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonce))
        for name, body in bodies.items():
            resource = response.resources.add(name=name, version=version or digest(body).hex())
            resource.resource.value = body
        response.removed_resources.extend(removed)
        said = parsed(self.envoy.receive(response.SerializeToString(), float(self._nonce)))
        assert (said[0].type_url, said[0].response_nonce) == (type_url, str(self._nonce))
        assert not said[0].HasField("error_detail")
        assert not said[0].HasField("node")
        return said[1:]


def parsed(requests: list[bytes]) -> list[discovery_pb2.DeltaDiscoveryRequest]:
    return [discovery_pb2.DeltaDiscoveryRequest.FromString(request) for request in requests]


def cluster(name: str, *, seconds: int = 1, is_eds: bool = True) -> bytes:
    kind = cluster_pb2.Cluster.EDS if is_eds else cluster_pb2.Cluster.STATIC
    message = cluster_pb2.Cluster(name=name, type=kind)
    message.connect_timeout.seconds = seconds
    return bytes(message.SerializeToString())


def endpoints(name: str, *addresses: str) -> bytes:
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    for address in addresses:
        message.endpoints.add().lb_endpoints.add().endpoint.address.socket_address.address = address
    return bytes(message.SerializeToString())


def configured() -> Conversation:
    talk = Conversation()
    talk.open()
    talk.respond(CLUSTER, {"a": cluster("a"), "inbound": cluster("inbound", is_eds=False)})
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.1")})
    talk.respond(LISTENER, {"l": b""})
    return talk


def test_node_is_whole_and_on_the_first_request_alone() -> None:
    talk = Conversation()
    first = talk.open()
    assert [request.type_url for request in first] == [CLUSTER]
    node = first[0].node
    assert node.id == "default.dp-1"
    assert node.user_agent_name == "envoy"
    assert node.metadata["features"] == ["feature-reuse-port"]
    # The list of extensions is what makes a real node as large as it is.
    assert len(node.extensions) > 300
    assert len(first[0].SerializeToString()) > 40_000


def test_node_joins_a_request_of_any_length() -> None:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["x" * 200])
    for length in (0, 1, 127, 128, 20_000):
        whole = discovery_pb2.DeltaDiscoveryRequest.FromString(
            with_node(request.SerializeToString(), "n" * length, b"")
        )
        assert whole.node.id == "n" * length
        whole.ClearField("node")
        assert whole == request


def test_listeners_are_asked_for_when_all_clusters_are_warm() -> None:
    talk = Conversation()
    talk.open()
    (asked,) = talk.respond(CLUSTER, {"b": cluster("b"), "a": cluster("a"), "in": cluster("in", is_eds=False)})
    assert (asked.type_url, list(asked.resource_names_subscribe)) == (ENDPOINT, ["a", "b"])
    assert talk.respond(ENDPOINT, {"a": endpoints("a")}) == []
    assert not talk.envoy.is_configured()
    (asked,) = talk.respond(ENDPOINT, {"b": endpoints("b")})
    assert (asked.type_url, list(asked.resource_names_subscribe)) == (LISTENER, [])
    assert not talk.envoy.is_configured()
    assert talk.respond(LISTENER, {"l": b""}) == []
    assert talk.envoy.is_configured()


def test_changed_cluster_warms_without_a_question_and_needs_its_endpoints() -> None:
    talk = configured()
    assert talk.respond(CLUSTER, {"a": cluster("a", seconds=2)}) == []
    assert not talk.envoy.is_configured()
    assert talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.1")}) == []
    assert talk.envoy.is_configured()
    assert talk.received.for_warming == 1
    assert talk.received.held_already == 0


def test_clusters_that_go_take_their_endpoints_with_them() -> None:
    talk = configured()
    (asked,) = talk.respond(CLUSTER, {"b": cluster("b")}, ["a"])
    assert (list(asked.resource_names_subscribe), list(asked.resource_names_unsubscribe)) == (["b"], ["a"])
    assert talk.envoy.held[ENDPOINT] == {}
    assert set(talk.envoy.held[CLUSTER]) == {"b", "inbound"}


def test_new_stream_says_what_is_held_and_forgets_nothing() -> None:
    talk = configured()
    requests = talk.open()
    assert [request.type_url for request in requests] == [CLUSTER, ENDPOINT, LISTENER]
    assert [request.HasField("node") for request in requests] == [True, False, False]
    assert [dict(request.initial_resource_versions) for request in requests] == [
        talk.envoy.held[type_url] for type_url in (CLUSTER, ENDPOINT, LISTENER)
    ]
    assert list(requests[1].resource_names_subscribe) == ["a"]


def test_stream_that_breaks_before_endpoints_came_asks_for_them_again() -> None:
    talk = Conversation()
    talk.open()
    talk.respond(CLUSTER, {"a": cluster("a")})
    requests = talk.open()
    assert [(request.type_url, list(request.resource_names_subscribe)) for request in requests] == [
        (CLUSTER, []),
        (ENDPOINT, ["a"]),
    ]


def test_what_is_sent_for_nothing_or_wrongly_is_counted() -> None:
    talk = configured()
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.1")})
    assert talk.received.held_already == 1
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.2")}, version="made up")
    assert talk.received.wrong_versions == 1
    assert talk.received.messages == {CLUSTER: 1, ENDPOINT: 3, LISTENER: 1}
    assert talk.told[-1] == ("default.dp-1", ENDPOINT, "a", 5.0)


def test_cluster_that_warms_when_the_stream_ends_waits_and_gives_up() -> None:
    """The endpoints that it held serve on, as with Envoy's `initial_fetch_timeout`; what it never held it waits for."""
    talk = configured()
    talk.respond(CLUSTER, {"a": cluster("a", seconds=2), "new": cluster("new")})
    talk.open()
    assert talk.envoy.warming == {"a", "new"}
    talk.envoy.wait_no_longer(("a", "new"))
    assert talk.envoy.warming == {"new"}
    assert talk.received.given_up == 1


def test_what_the_end_of_the_stream_may_have_left_unanswered_is_counted_apart() -> None:
    talk = configured()
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.2")})
    talk.open()
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.2")})
    assert (talk.received.unanswered, talk.received.held_already) == (1, 0)
    # Once is right; and of a stream that had none before it ended nothing was left.
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.2")})
    assert (talk.received.unanswered, talk.received.held_already) == (1, 1)
    talk.open()
    talk.open()
    talk.respond(ENDPOINT, {"a": endpoints("a", "10.0.0.2")})
    assert (talk.received.unanswered, talk.received.held_already) == (1, 2)
