"""Endpoints one by one: a client that comes, goes, refuses and comes back ends with exactly those that there are."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kumafast.snapshot import EndpointEntry, LoadAssignment, Snapshot, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LB_ENDPOINT, LISTENER
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

SEEDS, STEPS = 300, 60
ZONES = ("", "east", "west")


class Service:
    """A service as it changes, one endpoint at a time."""

    def __init__(self) -> None:
        self.assignment = LoadAssignment("backend")
        self.entries: list[EndpointEntry] = []
        self.cluster_number = 0
        self._number = 0

    def add(self, zone: str) -> None:
        self._number += 1
        # Long ones too, whose length takes two bytes.
        body = b"%04d" % self._number + b"." * (self._number % 7 * 40)
        entry = EndpointEntry.of(zone=zone, order=self._number, lb_endpoint=body)
        self.entries.append(entry)
        self.assignment.alter([], [entry])

    def remove(self, rng: random.Random) -> None:
        entry = self.entries.pop(rng.randrange(len(self.entries)))
        self.assignment.alter([entry], [])

    def snapshot(self) -> Snapshot:
        cluster = XdsResource(CLUSTER, "backend", b"%d" % self.cluster_number)
        return Snapshot([*Snapshot.of(cluster).layers, self.assignment.collections(encode)])

    def bodies(self) -> set[bytes]:
        return {entry.lb_endpoint for entry in self.entries}


def encode(cluster_name: str, collections: Sequence[tuple[str, str]]) -> bytes:
    # The names as text are all that the client here wants to know.
    return " ".join(name for _, name in collections).encode()


class Client:
    """An Envoy, as far as endpoints go."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.streams = 0
        self.session: Session
        self.pointer_version = ""
        self.members: dict[str, dict[str, bytes]] = {}
        self.sent = 0
        self.connect()

    def connect(self) -> None:
        self.streams += 1
        self.session = Session(Variant.DELTA, epoch=f"s{self.streams}")
        first = self.streams == 1
        held = {} if first else {"backend": self.pointer_version}
        self.session.receive(
            Request(type_url=CLUSTER, subscribe=["*"], initial_versions={} if first else {"backend": ""})
        )
        self.session.receive(Request(type_url=ENDPOINT, subscribe=["backend"], initial_versions=held))
        if self.members:
            # As Envoy: what it holds of a collection is not said.
            self.session.receive(Request(type_url=LB_ENDPOINT, subscribe=list(self.members)))

    def drink(self, snapshot: Snapshot, *, refuses: float = 0.0) -> None:
        for _ in range(100):
            response = self.session.respond(snapshot, is_patient=False)
            if response is None:
                return
            is_refused = response.type_url == LB_ENDPOINT and self.rng.random() < refuses
            self.take(response, is_refused=is_refused)
            error = "no" if is_refused else None
            self.session.receive(Request(type_url=response.type_url, nonce=response.nonce, error=error))
            if response.type_url == ENDPOINT:
                self.follow(response)
        raise AssertionError("no end of responses")

    def take(self, response: Response, *, is_refused: bool) -> None:
        if response.type_url != LB_ENDPOINT:
            return
        assert not {resource.name for resource in response.resources} & set(response.removed)
        for resource in response.resources:
            self.sent += 1
            # Of what it refuses it may have taken some.
            if not is_refused or self.rng.random() < 0.5:
                self.of(resource.name)[resource.name] = resource.body
        for name in response.removed:
            if not is_refused or self.rng.random() < 0.5:
                self.of(name).pop(name, None)

    def of(self, member: str) -> dict[str, bytes]:
        collection = member.rpartition("/")[0] + "/*"
        assert collection in self.members, "a member of a collection that was not asked for"
        return self.members[collection]

    def follow(self, response: Response) -> None:
        (pointer,) = response.resources
        self.pointer_version = pointer.version
        names = pointer.body.decode().split()
        old = [name for name in self.members if name not in names]
        new = [name for name in names if name not in self.members]
        self.members = {name: self.members.get(name, {}) for name in names}
        if old or new:
            self.session.receive(Request(type_url=LB_ENDPOINT, subscribe=new, unsubscribe=old))

    def bodies(self) -> set[bytes]:
        return {body for members in self.members.values() for body in members.values()}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_history_ends_with_the_endpoints_that_there_are(seed: int) -> None:
    rng = random.Random(seed)
    service = Service()
    service.add("east")
    client = Client(rng)
    for _ in range(STEPS):
        what = rng.random()
        if what < 0.45:
            service.add(rng.choice(ZONES))
        elif what < 0.75 and service.entries:
            service.remove(rng)
        elif what < 0.85:
            client.connect()
        elif what < 0.9:
            service.cluster_number += 1
        if rng.random() < 0.7:
            client.drink(service.snapshot(), refuses=0.2)
    # What was refused is offered again when something changes.
    for zone in ZONES:
        service.add(zone)
    client.drink(service.snapshot())
    assert client.bodies() == service.bodies()
    assert client.session.is_synced(service.snapshot())


def test_one_change_is_one_member() -> None:
    service = Service()
    for _ in range(100):
        service.add("east")
    client = Client(random.Random(0))
    client.drink(service.snapshot())
    assert client.sent == 100
    service.add("east")
    client.drink(service.snapshot())
    assert client.sent == 101
    service.remove(random.Random(0))
    client.drink(service.snapshot())
    assert client.sent == 101
    assert client.bodies() == service.bodies()


def test_a_cluster_that_is_sent_anew_gets_a_collection_of_a_new_name() -> None:
    service = Service()
    service.add("east")
    client = Client(random.Random(0))
    client.drink(service.snapshot())
    before = set(client.members)
    service.cluster_number += 1
    client.drink(service.snapshot())
    assert not before & set(client.members)
    assert client.bodies() == service.bodies()


def test_names_of_another_stream_ask_for_nothing_and_names_of_others_are_left_alone() -> None:
    plain = XdsResource(LB_ENDPOINT, "xdstp:///envoy.config.endpoint.v3.LbEndpoint/mine/a", b"a")
    session = Session(Variant.DELTA)
    stale = "xdstp:///envoy.config.endpoint.v3.LbEndpoint/kumafast-old-1/0123456789abcdef/*"
    session.receive(Request(type_url=LB_ENDPOINT, subscribe=[stale]))
    assert session.respond(Snapshot.of(plain)) is None
    session.receive(Request(type_url=LB_ENDPOINT, subscribe=[plain.name]))
    response = session.respond(Snapshot.of(plain))
    assert response is not None
    assert [resource.name for resource in response.resources] == [plain.name]


def test_listeners_wait_until_members_have_been_sent() -> None:
    service = Service()
    service.add("east")
    client = Client(random.Random(0))
    session = client.session
    session.receive(Request(type_url=LISTENER, subscribe=["*"]))
    client.drink(with_listener(service, b"1"))
    service.cluster_number += 1
    snapshot = with_listener(service, b"2")
    assert answered(session, snapshot).type_url == CLUSTER
    pointer = answered(session, snapshot)
    assert pointer.type_url == ENDPOINT
    assert session.respond(snapshot) is None
    assert session.is_holding
    assert not session.is_synced(snapshot)
    client.follow(pointer)
    assert answered(session, snapshot).type_url == LB_ENDPOINT
    assert answered(session, snapshot).type_url == LISTENER
    assert session.is_synced(snapshot)


def test_nobody_waits_for_ever_for_a_client_that_does_not_ask() -> None:
    service = Service()
    service.add("east")
    session = Client(random.Random(0)).session
    session.receive(Request(type_url=LISTENER, subscribe=["*"]))
    first = with_listener(service, b"1")
    assert [answered(session, first).type_url for _ in range(3)] == [CLUSTER, ENDPOINT, LISTENER]
    second = with_listener(service, b"2")
    assert session.respond(second) is None
    impatient = session.respond(second, is_patient=False)
    assert impatient is not None
    assert impatient.type_url == LISTENER
    session.receive(Request(type_url=LISTENER, nonce=impatient.nonce))
    assert session.respond(second, is_patient=False) is None
    assert answered(session, with_listener(service, b"3")).type_url == LISTENER


def test_a_copy_gives_the_same_names_and_goes_its_own_way() -> None:
    service = Service()
    service.add("east")
    client = Client(random.Random(0))
    client.drink(service.snapshot())
    copy = client.session.copy()
    service.add("east")
    one, other = (session.respond(service.snapshot()) for session in (client.session, copy))
    assert one is not None
    assert one == other
    # What the one's client answers and is sent then, the other knows nothing of.
    client.session.receive(Request(type_url=LB_ENDPOINT, nonce=one.nonce, error="no"))
    service.add("east")
    again = client.session.respond(service.snapshot())
    assert again is not None
    assert len(again.resources) == 2
    copy.receive(Request(type_url=LB_ENDPOINT, nonce=one.nonce))
    later = copy.respond(service.snapshot())
    assert later is not None
    assert len(later.resources) == 1


def with_listener(service: Service, content: bytes) -> Snapshot:
    return Snapshot([*service.snapshot().layers, *Snapshot.of(XdsResource(LISTENER, "outbound", content)).layers])


def answered(session: Session, snapshot: Snapshot) -> Response:
    """The response that is due, which the client takes."""
    response = session.respond(snapshot)
    assert response is not None
    session.receive(Request(type_url=response.type_url, nonce=response.nonce))
    return response
