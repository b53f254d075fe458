"""What a session sends does not depend on whether a snapshot was made from the one before or anew.

Two sessions hear the same client. One is shown derived snapshots, which know what has changed; the other is shown the
same content made anew, of which everything has to be looked at. They must say the same, word for word.
"""

from __future__ import annotations

import random
from weakref import ref

import pytest

from kumafast.snapshot import Layer, Snapshot, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

TYPES = (CLUSTER, ENDPOINT, LISTENER)
NAMES = tuple("abcdefgh")


def _anew(snapshot: Snapshot) -> Snapshot:
    """Equal resources that are not the same, so that nothing is known of them."""
    return Snapshot(
        Layer(XdsResource(each.type_url, each.name, each.body) for each in layer) for layer in snapshot.layers
    )


class Twins:
    """Two sessions with one client, which answers when it likes."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._sessions = (Session(variant), Session(variant))
        self._names: dict[str, list[str]] = {}
        self.unanswered: list[Response] = []
        self.sent = 0

    def ask(self, request: Request) -> None:
        events = [session.receive(request) for session in self._sessions]
        assert events[0] == events[1]

    def show(self, snapshot: Snapshot, *, is_patient: bool) -> None:
        derived, anew = self._sessions
        while True:
            response = derived.respond(snapshot, is_patient=is_patient)
            assert response == anew.respond(_anew(snapshot), is_patient=is_patient)
            assert derived.is_holding == anew.is_holding
            assert derived.is_synced(snapshot) == anew.is_synced(_anew(snapshot))
            if response is None:
                return
            self.sent += 1
            self.unanswered.append(response)

    def answer(self, *, error: str | None) -> None:
        if self.unanswered:
            response = self.unanswered.pop(0)
            names = self._names.get(response.type_url, []) if self._variant is Variant.SOTW else []
            version = response.version if self._variant is Variant.SOTW and error is None else ""
            self.ask(
                Request(type_url=response.type_url, nonce=response.nonce, error=error, names=names, version=version)
            )

    def subscribe(self, type_url: str, names: list[str], dropped: list[str]) -> None:
        if self._variant is Variant.DELTA:
            self.ask(Request(type_url=type_url, subscribe=names, unsubscribe=dropped))
        else:
            kept = [name for name in self._names.get(type_url, []) if name not in dropped]
            self._names[type_url] = [*kept, *(name for name in names if name not in kept)]
            self.ask(Request(type_url=type_url, names=self._names[type_url]))


def _layer(rng: random.Random, type_url: str, name: str) -> Layer:
    return Layer([XdsResource(type_url, name, bytes([rng.randrange(4)]))])


@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("seed", range(150))
def test_twins_say_the_same(seed: int, variant: Variant) -> None:
    rng = random.Random(seed)
    twins = Twins(variant)
    snapshot = Snapshot()
    for type_url in TYPES:
        twins.subscribe(type_url, ["*"] if type_url != ENDPOINT or rng.random() < 0.3 else list(NAMES[:5]), [])
    for _ in range(120):
        kind = rng.random()
        if kind < 0.15 or not snapshot.layers:
            names = sorted(rng.sample(NAMES, rng.randrange(1, len(NAMES))))
            snapshot = Snapshot([_layer(rng, type_url, name) for type_url in TYPES for name in names])
        elif kind < 0.65:
            places = rng.sample(range(len(snapshot.layers)), rng.randrange(1, 3))
            replaced = {place: _layer(rng, *_identity(snapshot.layers[place])) for place in places}
            snapshot = snapshot.replaced(replaced)
        elif kind < 0.72:
            wanted, dropped = rng.sample(NAMES, 2), rng.sample(NAMES, 2)
            twins.subscribe(rng.choice(TYPES), wanted if rng.random() < 0.7 else ["*"], dropped)
        elif kind < 0.95:
            twins.answer(error="no" if rng.random() < 0.1 else None)
        if rng.random() < 0.8:
            twins.show(snapshot, is_patient=rng.random() < 0.9)
    assert twins.sent > 3


def _identity(layer: Layer) -> tuple[str, str]:
    (resource,) = layer
    return resource.type_url, resource.name


def test_one_change_of_many_resources_is_found_without_looking_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Layer([XdsResource(ENDPOINT, f"service-{number}", b"1")]) for number in range(1_000)]
    snapshot = Snapshot(layers)
    session = Session(Variant.DELTA)
    session.receive(Request(type_url=ENDPOINT, subscribe=[f"service-{number}" for number in range(1_000)]))
    first = session.respond(snapshot)
    assert first is not None
    session.receive(Request(type_url=ENDPOINT, nonce=first.nonce))
    assert session.respond(snapshot) is None
    monkeypatch.setattr("kumafast.stream.delta.diff_versions", None)
    for body in (b"2", b"3"):
        snapshot = snapshot.replaced({500: Layer([XdsResource(ENDPOINT, "service-500", body)])})
        response = session.respond(snapshot)
        assert response is not None
        assert [resource.body for resource in response.resources] == [body]
        session.receive(Request(type_url=ENDPOINT, nonce=response.nonce))
        assert session.respond(snapshot) is None
        assert session.is_synced(snapshot)


def test_what_is_sent_again_is_found_once_for_those_who_share_it_and_keeps_nothing() -> None:
    def resources(type_url: str, body: bytes) -> Layer:
        return Layer([XdsResource(type_url, name, body) for name in "ba"])

    snapshot = Snapshot([resources(CLUSTER, b"1"), resources(ENDPOINT, b"1")])
    sessions = [Session(Variant.DELTA) for _ in range(2)]
    for session in sessions:
        session.receive(Request(type_url=CLUSTER, subscribe=["*"]))
        session.receive(Request(type_url=ENDPOINT, subscribe=["a", "b"]))
        _drink(session, snapshot)
    # Clusters that are sent anew warm, and Envoy waits for their endpoints though these are as they were.
    other = snapshot.replaced({0: resources(CLUSTER, b"2")})
    sent = [_drink(session, other) for session in sessions]
    assert [[item.name for item in response.resources] for response in sent[0]] == [["b", "a"], ["a", "b"]]
    assert sent[0] == sent[1]
    assert sent[0][1].resources is sent[1][1].resources
    content = ref(snapshot.content(ENDPOINT))
    assert content() is not None
    del snapshot, other, session, sessions, sent
    # At once, without a look for cycles.
    assert content() is None


def _drink(session: Session, snapshot: Snapshot) -> list[Response]:
    sent = []
    while (response := session.respond(snapshot)) is not None:
        sent.append(response)
        session.receive(Request(type_url=response.type_url, nonce=response.nonce))
    return sent
