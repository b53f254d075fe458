"""What stands with each client: over its streams, after reconnects, within bounds."""

from __future__ import annotations

import time

from kumafast.insights.clients import ERROR_CHARACTERS_MAX, TYPES_MAX, Answer, Clients, ClientStatus
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, LISTENER


def client_of(clients: Clients, key: str) -> ClientStatus:
    found = clients.client(key)
    assert found is not None
    return found


def test_a_type_from_sent_to_taken_and_refused() -> None:
    clients = Clients()
    before = time.time()
    clients.stream_opened("s", Node("n"))
    clients.response_sent("s", CLUSTER, "1", 100)
    status = client_of(clients, "n").types[CLUSTER]
    assert (status.sent, status.bytes, status.sent_version, status.answer) == (1, 100, "1", Answer.AWAITED)
    assert (status.acknowledged_version, status.rejected_version, status.error) == ("", "", "")
    clients.response_acknowledged("s", CLUSTER, "1")
    assert (status.acknowledged, status.acknowledged_version, status.answer) == (1, "1", Answer.TAKEN)
    clients.response_sent("s", CLUSTER, "2", 50)
    clients.response_rejected("s", CLUSTER, "2", "bad")
    assert (status.sent, status.bytes, status.rejected, status.rejected_version) == (2, 150, 1, "2")
    assert (status.error, status.answer, status.acknowledged_version) == ("bad", Answer.REFUSED, "1")
    assert before <= status.acknowledged_at <= status.rejected_at == status.changed_at <= time.time()
    clients.response_sent("s", CLUSTER, "3", 50)
    clients.response_acknowledged("s", CLUSTER, "3")
    # What was refused is still told, but no longer stands.
    assert (status.answer, status.rejected_version, status.error) == (Answer.TAKEN, "2", "bad")


def test_the_key_is_the_id_else_the_cluster_else_a_star() -> None:
    clients = Clients()
    for number, node in enumerate((Node("n", "c"), Node("", "c"), Node(""), Node(""))):
        clients.stream_opened(str(number), node)
    assert [(client.key, client.streams) for client in clients] == [("n", 1), ("c", 1), ("*", 2)]


def test_what_was_taken_before_a_reconnect_counts_on() -> None:
    clients, snapshot = Clients(), Snapshot()
    clients.stream_opened("a", Node("n"))
    clients.response_sent("a", CLUSTER, "1", 10)
    clients.response_rejected("a", CLUSTER, "1", "bad")
    clients.response_sent("a", LISTENER, "1", 10)
    clients.response_acknowledged("a", LISTENER, "1")
    clients.stream_synced("a", snapshot)
    assert client_of(clients, "n").synced is snapshot
    clients.stream_closed("a")
    gone = client_of(clients, "n")
    assert (gone.streams, gone.connected_at, gone.synced) == (0, None, None)
    assert gone.disconnected_at is not None
    assert gone.types[CLUSTER].error == "bad"
    clients.stream_opened("b", Node("n"))
    clients.response_sent("b", CLUSTER, "2", 5)
    clients.response_acknowledged("b", CLUSTER, "2")
    back = client_of(clients, "n")
    assert (back.streams, back.disconnected_at) == (1, None)
    assert back.connected_at is not None
    cluster = back.types[CLUSTER]
    assert (cluster.sent, cluster.bytes, cluster.acknowledged_version, cluster.answer) == (2, 15, "2", Answer.TAKEN)
    assert (cluster.rejected, cluster.rejected_version, cluster.error) == (1, "1", "bad")
    assert back.types[LISTENER].acknowledged_version == "1"
    # Looking adds nothing up for good.
    assert client_of(clients, "n").types[CLUSTER].sent == 2


def test_streams_of_one_node_are_one_client() -> None:
    """As where each type has a stream of its own; connected means since the first of those that overlap."""
    clients = Clients()
    clients.stream_opened("cds", Node("n"))
    since = client_of(clients, "n").connected_at
    clients.stream_opened("lds", Node("n"))
    clients.response_sent("cds", CLUSTER, "1", 1)
    clients.response_sent("lds", LISTENER, "1", 1)
    both = client_of(clients, "n")
    assert (both.streams, set(both.types)) == (2, {CLUSTER, LISTENER})
    clients.stream_closed("cds")
    assert client_of(clients, "n").connected_at == since
    assert set(client_of(clients, "n").types) == {CLUSTER, LISTENER}


def test_nodes_that_have_gone_are_kept_up_to_a_bound() -> None:
    clients = Clients(gone_max=3)
    clients.stream_opened("stays", Node("stays"))
    for number in range(10):
        clients.stream_opened(str(number), Node(f"n{number}"))
        clients.stream_closed(str(number))
    assert [client.key for client in clients] == ["stays", "n7", "n8", "n9"]
    # One that comes back is not among those that have gone.
    clients.stream_opened("again", Node("n7"))
    for number in range(10, 14):
        clients.stream_opened(str(number), Node(f"n{number}"))
        clients.stream_closed(str(number))
    assert [client.key for client in clients] == ["stays", "n7", "n11", "n12", "n13"]
    clients.stream_closed("again")
    clients.stream_closed("stays")
    assert len(clients) == 3


def test_neither_types_nor_errors_grow_without_bound() -> None:
    clients = Clients()
    for number in range(3 * TYPES_MAX):
        clients.stream_opened("s", Node("n"))
        clients.response_sent("s", f"type-{number}", "1", 1)
        clients.response_rejected("s", f"type-{number}", "1", "x" * 10 * ERROR_CHARACTERS_MAX)
        clients.stream_closed("s")
    types = client_of(clients, "n").types
    assert list(types) == [f"type-{number}" for number in range(2 * TYPES_MAX, 3 * TYPES_MAX)]
    assert {len(status.error) for status in types.values()} == {ERROR_CHARACTERS_MAX}


def test_what_is_not_known_changes_nothing() -> None:
    clients = Clients()
    clients.response_sent("x", CLUSTER, "1", 1)
    clients.stream_synced("x", Snapshot())
    clients.stream_closed("x")
    clients.stream_opened("s", Node("n"))
    clients.response_acknowledged("s", CLUSTER, "1")
    clients.response_rejected("s", CLUSTER, "1", "bad")
    assert client_of(clients, "n").types == {}
    assert (clients.client("x"), clients.stream("x")) == (None, None)
