"""Many streams of one server share what is worked out for one: each is sent what a session of its own would send.

The oracle is a plain `Session` for each stream, which is told the same and shares nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.stream.memory_client import MemoryClient
from tests.stream.test_stream_model import NAMES, TYPES, snapshot_of

from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE
from kumafast.stream import XdsServer, ads
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

NODES = ("a", "b")
CONTENT = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "2"]), max_size=3)
ASKED = st.lists(st.sampled_from([*NAMES, "ghost", "*"]), max_size=3, unique=True)
METHODS = {Variant.DELTA: "DeltaAggregatedResources", Variant.SOTW: "StreamAggregatedResources"}


class Twin:
    """A stream of the server and its oracle; what the one sends is compared with what the other does."""

    def __init__(
        self, server: XdsServer, cache: SnapshotCache, variant: Variant, node_id: str, run: Callable[..., None]
    ) -> None:
        self.variant, self._cache, self._node_id, self._run = variant, cache, node_id, run
        self.client = MemoryClient(server, method=METHODS[variant], node_id=node_id)
        self.session = Session(variant)
        self.expected: list[Response] = []
        # The oracle's nonces by those of the server.
        self.nonces: dict[str, str] = {}
        self.last: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        self.is_paused = self.is_blocked = self.has_asked = False

    def flush(self, *, is_patient: bool = True) -> None:
        while self.has_asked and not self.is_blocked:
            response = self.session.respond(self._cache.get(self._node_id), is_patient=is_patient)
            if response is None:
                break
            self.expected.append(response)
            self.is_blocked = self.is_paused

    def ask(self, type_url: str, nonce: str, error: str | None, names: list[str], others: list[str]) -> None:
        fields: dict[str, Any] = {"response_nonce": nonce}
        known = self.nonces.get(nonce, nonce)
        if self.variant is Variant.SOTW:
            fields["resource_names"] = names
            request = Request(type_url=type_url, nonce=known, error=error, names=names)
        else:
            fields |= {"resource_names_subscribe": names, "resource_names_unsubscribe": others}
            request = Request(type_url=type_url, nonce=known, error=error, subscribe=names, unsubscribe=others)
        self._run(self.client.ask, type_url, error=error, node=not self.has_asked or len(names) != 1, **fields)
        self.session.receive(request)
        self.has_asked = True
        self.flush()

    def pause(self) -> None:
        self.is_paused = True
        self.client.protocol.pause_writing()

    def resume(self) -> None:
        if self.is_paused:
            self._run(self.client.protocol.resume_writing)
            self.is_paused = self.is_blocked = False
            self.flush()

    def lose_patience(self) -> None:
        if self.client.stream.patient_until and not self.is_blocked:
            self._run(self.client.stream.lose_patience)
            self.flush(is_patient=False)

    def compare(self) -> None:
        if self.is_paused:
            return
        self.client.take()
        while self.client.received:
            response = self.client.received.popleft()
            assert self.expected, f"{response} is not due"
            due = self.expected.pop(0)
            assert response.type_url == due.type_url
            assert response.nonce not in self.nonces, "a nonce twice (rule 8)"
            self.nonces[response.nonce] = due.nonce
            self.last[due.type_url] = self.pending[due.type_url] = response.nonce
            if self.variant is Variant.SOTW:
                assert response.version_info == due.version
                # Content is equal in whatever order its resources stand.
                assert sorted(item.value for item in response.resources) == sorted(item.body for item in due.resources)
            else:
                assert response.system_version_info == due.version
                assert sorted(response.removed_resources) == sorted(due.removed)
                assert sorted((item.name, item.version) for item in response.resources) == sorted(
                    (item.name, item.version) for item in due.resources
                )
        assert not self.expected, "due and not sent"


class SharedStandings(RuleBasedStateMachine):
    """Streams of two nodes, of both variants, that often do the same and sometimes do not."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patience_s, ads.PATIENCE_S = ads.PATIENCE_S, 1e6
        self.contents: dict[str, dict[str, str]] = {}
        self.cache = SnapshotCache()
        self.server = XdsServer(self.cache)
        self.twins: list[Twin] = []

    def turn(self) -> None:
        """Let the loop have as many turns as there can be work for."""
        for twin in self.twins:
            twin.flush()
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    @initialize(variants=st.lists(st.sampled_from(Variant), min_size=2, max_size=5))
    def connect_all(self, variants: list[Variant]) -> None:
        for variant in variants:
            self.connect(variant, "a")

    @rule(variant=st.sampled_from(Variant), node_id=st.sampled_from(NODES))
    def connect(self, variant: Variant, node_id: str) -> None:
        if len(self.twins) < 8:
            self.run(lambda: self.twins.append(Twin(self.server, self.cache, variant, node_id, self.run)))

    @rule(type_url=st.sampled_from(TYPES), content=CONTENT, nodes=st.sampled_from([NODES, NODES, ("a",), ("b",)]))
    def change(self, type_url: str, content: dict[str, str], nodes: tuple[str, ...]) -> None:
        self.contents = {**self.contents, type_url: content}
        for node_id in nodes:
            self.set(node_id, snapshot_of(self.contents))

    @rule(names=CONTENT)
    def change_as_a_mesh(self, names: dict[str, str]) -> None:
        """Clusters with their endpoints, listeners with their routes: where the order among types matters."""
        self.contents = {**self.contents, **dict.fromkeys((CLUSTER, ENDPOINT, LISTENER, ROUTE), names)}
        snapshot = snapshot_of(self.contents)
        for node_id in NODES:
            self.set(node_id, snapshot)

    @rule(node_id=st.sampled_from(NODES))
    def clear(self, node_id: str) -> None:
        self.cache.clear(node_id)

    def set(self, node_id: str, snapshot: Snapshot) -> None:
        self.run(self.cache.set, node_id, snapshot)
        self.turn()

    def run(self, function: Callable[..., object], *what: object, **named: object) -> None:
        """Call something on the loop."""

        async def call() -> None:
            function(*what, **named)

        self.loop.run_until_complete(call())

    @rule(type_url=st.sampled_from(TYPES), names=ASKED)
    def everyone_asks(self, type_url: str, names: list[str]) -> None:
        for twin in self.twins:
            twin.ask(type_url, twin.last.get(type_url, ""), None, names, [])

    @rule(error=st.none() | st.sampled_from(["no", ""]), most=st.integers(1, 8))
    def answer(self, error: str | None, most: int) -> None:
        for twin in self.twins[:most]:
            for type_url, nonce in list(twin.pending.items()):
                del twin.pending[type_url]
                names = ["*"] if twin.variant is Variant.SOTW else []
                twin.ask(type_url, nonce, error, names, [])

    @rule(
        at=st.integers(0, 7),
        type_url=st.sampled_from(TYPES),
        names=ASKED,
        others=ASKED,
        error=st.none() | st.just("no"),
        nonce=st.sampled_from(["last", "stale", ""]),
    )
    def one_asks(
        self, at: int, type_url: str, names: list[str], others: list[str], error: str | None, nonce: str
    ) -> None:
        twin = self.twins[at % len(self.twins)]
        if nonce == "last":
            nonce = twin.last.get(type_url, "")
            twin.pending.pop(type_url, None)
        twin.ask(type_url, nonce, error, names, others)

    @rule(at=st.integers(0, 7))
    def one_stops_reading(self, at: int) -> None:
        twin = self.twins[at % len(self.twins)]
        twin.compare()
        twin.pause()

    @rule(at=st.integers(0, 7))
    def one_reads_again(self, at: int) -> None:
        self.twins[at % len(self.twins)].resume()

    @rule()
    def patience_ends(self) -> None:
        for twin in self.twins:
            twin.lose_patience()

    @rule(at=st.integers(0, 7))
    def one_is_lost(self, at: int) -> None:
        if len(self.twins) > 1:
            self.twins.pop(at % len(self.twins)).client.lose()

    @invariant()
    def is_as_alone(self) -> None:
        self.turn()
        for twin in self.twins:
            twin.compare()
        assert self.server.stream_count == len(self.twins)

    def teardown(self) -> None:
        try:
            for twin in self.twins:
                twin.resume()
            self.is_as_alone()
            for twin in self.twins:
                twin.client.lose()
            assert self.server.stream_count == 0
        finally:
            ads.PATIENCE_S = self.patience_s
            self.server._fleet.stop()
            self.loop.close()


settings.register_profile("shared", max_examples=400, stateful_step_count=30, deadline=None)
TestSharedStandings = pytest.mark.timeout(300)(SharedStandings.TestCase)
TestSharedStandings.settings = settings.get_profile("shared")
