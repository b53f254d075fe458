"""Any order of requests, rejections, reconnects and snapshots ends with the client holding the newest snapshot."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.stream.model_client import BAD, PARTIAL_TYPES, EnvoyClient, ModelClient

from kumafast.snapshot import Snapshot, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE
from kumafast.stream.messages import Variant

TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE, "type.googleapis.com/somebody.elses.Type")
NAMES = ("a", "b", "c", "")
CONTENTS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "2", "3"]), max_size=4)
ASKED = st.sets(st.sampled_from([*NAMES, "ghost", "*"]), max_size=5)


def snapshot_of(contents: dict[str, dict[str, str]]) -> Snapshot:
    resources = [
        XdsResource(type_url, name, version.encode(), version=version)
        for type_url, versions in contents.items()
        for name, version in versions.items()
    ]
    return Snapshot.of(*resources)


class OddClients(RuleBasedStateMachine):
    """Clients that keep the letter of the protocol and nothing of Envoy's habits."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, dict[str, str]] = {}
        self.snapshot: Snapshot | None = None

    @initialize(variant=st.sampled_from(Variant), is_hasty=st.booleans(), takes_parts=st.booleans())
    def open_stream(self, variant: Variant, is_hasty: bool, takes_parts: bool) -> None:
        self.client = ModelClient(variant, is_hasty=is_hasty, takes_parts=takes_parts)

    @rule(type_url=st.sampled_from(TYPES), content=CONTENTS, bad=st.none() | st.sampled_from(NAMES))
    def change(self, type_url: str, content: dict[str, str], bad: str | None) -> None:
        if bad in content:
            content = {**content, bad: BAD + content[bad]}
        self.contents = {**self.contents, type_url: content}
        self.snapshot = snapshot_of(self.contents)

    @rule()
    def forget_snapshot(self) -> None:
        self.snapshot = None

    @rule(type_url=st.sampled_from(TYPES), names=ASKED)
    def ask(self, type_url: str, names: set[str]) -> None:
        held = self.client.held.get(type_url)
        if held is not None and not self.client.takes_parts and (held.lost or held.pending):
            # A client that refuses good resources for a bad one's sake, and then gives the bad one up, gets the good
            # ones when they change. To send them at once would be to send again what was refused.
            return
        if names or (held is not None and held.is_open):
            self.client.ask(type_url, names)

    @precondition(lambda self: self.client.variant is Variant.DELTA)
    @rule(data=st.data())
    def resubscribe(self, data: st.DataObject) -> None:
        named = [(type_url, name) for type_url, held in self.client.held.items() for name in sorted(held.names)]
        if named:
            self.client.resubscribe(*data.draw(st.sampled_from(named)))

    @rule(is_patient=st.booleans())
    def send_one(self, is_patient: bool) -> None:
        response = self.client.session.respond(self.snapshot, is_patient=is_patient)
        assert response is None or self.snapshot is not None
        if response is not None:
            self.client.hear(response)

    @rule(type_url=st.sampled_from(TYPES))
    def answer_one(self, type_url: str) -> None:
        if type_url in self.client.held:
            self.client.answer(type_url)

    @rule()
    def reconnect(self) -> None:
        self.client.reconnect()

    @rule()
    def converge(self) -> None:
        client = self.client
        client.settle(self.snapshot)
        client.settle(self.snapshot, is_patient=False)
        if self.snapshot is None:
            return
        for type_url, held in client.held.items():
            wanted = client.wanted(type_url, self.snapshot)
            if any(version.startswith(BAD) for version in wanted.values()):
                continue
            if client.variant is Variant.SOTW and type_url in PARTIAL_TYPES:
                # SotW cannot say that one of these has gone (rule 36); the client keeps it until its parent goes.
                assert wanted.items() <= held.resources.items()
            else:
                assert held.resources == wanted
            if client.variant is Variant.DELTA:
                assert not held.owed, "asked for and not answered (rules 28, 29, 39)"
        all_good = not any(BAD in version for content in self.contents.values() for version in content.values())
        if all_good and any(held.is_open for held in client.held.values()):
            assert client.session.is_synced(self.snapshot)
        assert client.settle(self.snapshot, is_patient=False) == 0, "silence when nothing changed (rule 41)"
        # Equal content in a new object is no change.
        assert client.settle(snapshot_of(self.contents), is_patient=False) == 0

    @invariant()
    def is_silent_without_a_snapshot(self) -> None:
        if hasattr(self, "client"):
            assert self.client.session.respond(None) is None

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.converge()


class Envoys(RuleBasedStateMachine):
    """A client with Envoy's habits: it never waits for a hold to run out, and never routes to a cold cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.clusters: dict[str, str] = {}
        self.endpoints: dict[str, str] = {}
        self.listeners: dict[str, str] = {}
        self.snapshot = snapshot_of({})

    @initialize(variant=st.sampled_from(Variant), takes_parts=st.booleans())
    def open_stream(self, variant: Variant, takes_parts: bool) -> None:
        self.client = EnvoyClient(variant, takes_parts=takes_parts)
        self.client.start()
        self.client.settle(self.snapshot)

    @rule(clusters=CONTENTS, listeners=CONTENTS, endpoints=CONTENTS, bad=st.none() | st.sampled_from(NAMES))
    def change(
        self, clusters: dict[str, str], listeners: dict[str, str], endpoints: dict[str, str], bad: str | None
    ) -> None:
        self.clusters = {name: BAD + version if name == bad else version for name, version in clusters.items()}
        self.listeners = listeners
        self.endpoints = {name: endpoints.get(name, "1") for name in clusters}
        self.publish()

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from(["1", "2", "3"]))
    def change_endpoints(self, name: str, version: str) -> None:
        if name in self.endpoints:
            self.endpoints = {**self.endpoints, name: version}
            before = len(self.client.received)
            self.publish()
            assert len(self.client.received) <= before + 1

    def _make_snapshot(self) -> None:
        contents: dict[str, dict[str, str]] = {
            CLUSTER: self.clusters,
            ENDPOINT: self.endpoints,
            LISTENER: self.listeners,
            ROUTE: self.listeners,
        }
        self.snapshot = snapshot_of(contents)

    def publish(self) -> None:
        self._make_snapshot()
        self.client.settle(self.snapshot)
        if BAD not in str(self.clusters):
            assert not self.client.session.is_holding, "Envoy must never wait for the time-out"
            assert self.client.session.is_synced(self.snapshot)
            assert not self.client.warming, "a cluster is warm when its endpoints have come (rule 50)"
            assert self.client.held[CLUSTER].resources == self.clusters
            assert self.client.held[LISTENER].resources == self.listeners
            if ENDPOINT in self.client.held:
                assert self.client.held[ENDPOINT].resources.items() >= self.endpoints.items()

    @rule(
        clusters=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "2", "3"]), min_size=1, max_size=4),
        heard=st.integers(0, 6),
        is_last_answer_lost=st.booleans(),
    )
    def cut(self, clusters: dict[str, str], heard: int, is_last_answer_lost: bool) -> None:
        """The stream ends while a change is on its way: after so many responses one is lost, or its answer is."""
        self.clusters = clusters
        self.endpoints = {name: self.endpoints.get(name, "1") for name in clusters}
        self._make_snapshot()
        client = self.client
        for _ in range(heard):
            if (response := client.session.respond(self.snapshot)) is None:
                break
            client.hear(response)
        response = client.session.respond(self.snapshot)
        if response is not None and is_last_answer_lost:
            session, client.session = client.session, client.session.copy()
            client.hear(response)
            client.session = session
        client.reconnect()
        self.publish()

    @rule()
    def reconnect(self) -> None:
        if BAD in str(self.clusters):
            return
        self.client.reconnect()
        count = self.client.settle(self.snapshot)
        if self.client.variant is Variant.DELTA:
            held = {type_url: held.resources for type_url, held in self.client.held.items()}
            if all(held.values()):
                assert count == 0, "nothing is sent to a client that holds everything (rule 46)"
        assert self.client.session.is_synced(self.snapshot)


settings.register_profile("stream", max_examples=200, stateful_step_count=25, deadline=None)
TestOddClients = pytest.mark.timeout(300)(OddClients.TestCase)
TestOddClients.settings = settings.get_profile("stream")
TestEnvoys = pytest.mark.timeout(300)(Envoys.TestCase)
TestEnvoys.settings = settings.get_profile("stream")
