"""A process with Envoys: each dataplane has one, and of a change it says when it was where."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from bench.real_wires.changes import Changes, Write, node_id
from bench.real_wires.simulated_envoy import SimulatedEnvoy
from bench.regular_mesh import CLIENTS
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from loadtest.worker import Worker

from kumafast._core import digest
from kumafast.snapshot.resource import ENDPOINT

SIZE = 100


class Member:
    """A user without a socket."""

    def __init__(self, worker: Worker) -> None:
        self.name = worker.enlist(self)
        self.envoy: SimulatedEnvoy = worker.new_envoy(self.name)
        self.said: list[str] = []

    def cut(self) -> None:
        self.said.append("cut")

    def leave(self) -> None:
        self.said.append("leave")

    def come_back(self) -> None:
        self.said.append("come back")


def crowd(workers: int) -> list[tuple[Worker, list[Member]]]:
    made = []
    for index in range(workers):
        worker = Worker(SIZE, workers, lambda name, milliseconds, size: None)
        worker.index = index
        made.append((worker, [Member(worker) for _ in range(SIZE // workers)]))
    return made


def expected(worker: Worker, write: Write, number: int = 0) -> None:
    said = {each.name: getattr(write, each.name) for each in dataclasses.fields(write) if each.name != "document"}
    worker.answer("expect", {"number": number, "write": said, "started": 1.0})


def endpoints(service: str, *addresses: str) -> bytes:
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=service)
    for address in addresses:
        assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address.address = address
    body = assignment.SerializeToString()
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=ENDPOINT, nonce="1")
    resource = response.resources.add(name=service, version=digest(body).hex())
    resource.resource.value = body
    return bytes(response.SerializeToString())


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_dataplane_has_one_envoy_in_one_process(workers: int) -> None:
    names = [member.name for _, members in crowd(workers) for member in members]
    assert sorted(names) == [node_id(number) for number in range(SIZE)]


def test_one_user_too_many_is_told_so() -> None:
    ((worker, _),) = crowd(1)
    with pytest.raises(IndexError, match="the mesh has 100 dataplanes"):
        Member(worker)


def test_who_follows_a_user_that_went_has_its_dataplane() -> None:
    ((worker, members),) = crowd(1)
    worker.dismiss(members[7].name)
    worker.dismiss(members[3].name)
    assert [Member(worker).name for _ in range(2)] == [node_id(3), node_id(7)]


def test_arrivals_are_reported_once_each_by_the_process_that_has_them() -> None:
    service = "service-00003"
    write = Changes(SIZE).add("extra-1", service)
    arrived = []
    for worker, members in crowd(2):
        expected(worker, write, number=5)
        for member in members:
            member.envoy.receive(endpoints(service, write.address), 7.0)
        report = worker.answer("report", None)
        arrived += report["arrived"]
        assert worker.answer("report", None)["arrived"] == []
    assert {(number, at) for number, _, at in arrived} == {(5, 7.0)}
    assert {name for _, name, _ in arrived} == Changes(SIZE).clients(service)
    assert len(arrived) == CLIENTS


def test_who_is_away_or_leaves_is_not_waited_for() -> None:
    ((worker, members),) = crowd(1)
    service = "service-00003"
    clients = sorted(Changes(SIZE).clients(service))
    worker.answer("leave", clients[:1])
    expected(worker, Changes(SIZE).add("extra-1", service))
    worker.answer("leave", clients[1:2])
    for member in members:
        member.envoy.receive(endpoints(service, "10.9.0.1"), 7.0)
    assert sorted(name for _, name, _ in worker.answer("report", None)["arrived"]) == clients[2:]
    # Of the next change nobody who is back is left out.
    worker.answer("come back", clients[:2])
    write = Changes(SIZE).add("extra-2", service)
    expected(worker, write, number=1)
    for member in members:
        member.envoy.receive(endpoints(service, write.address), 8.0)
    assert {name for number, name, _ in worker.answer("report", None)["arrived"] if number == 1} == set(clients)


def test_members_are_told_what_concerns_them() -> None:
    ((worker, members),) = crowd(1)
    worker.answer("cut", None)
    worker.answer("leave", [members[1].name, "default.somebody-else"])
    worker.answer("come back", [members[1].name])
    assert members[0].said == ["cut"]
    assert members[1].said == ["cut", "leave", "come back"]


def test_holdings_are_plain_data_of_all() -> None:
    ((worker, members),) = crowd(1)
    members[4].envoy.receive(endpoints("service-00001", "10.0.0.1"), 1.0)
    holdings: list[dict[str, Any]] = worker.answer("holdings", None)
    assert [each["node_id"] for each in holdings] == [member.name for member in members]
    assert list(holdings[4]["held"][ENDPOINT]) == ["service-00001"]
    assert holdings[0]["held"][ENDPOINT] == {}
