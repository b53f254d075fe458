"""gRPC's own xDS clients, in C (grpcio) and Go: calls flow, whatever changes, is refused or restarts."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients.authority import Authority
from tests.clients.grpc_contents import COUNT, TARGETS, GrpcContents
from tests.clients.grpc_parts import (
    GRPC_MODES,
    Backend,
    ClientKilledError,
    ClientKilledWarning,
    GrpcClient,
    GrpcMode,
    command_of,
    write_bootstrap,
)
from tests.clients.xds_server import ServerProcess, wait_until

from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE

pytestmark = [
    pytest.mark.envoy,
    # In every second run of this file a thread of gRPC's crashes, at times twice in a row: it has more attempts.
    pytest.mark.flaky(reruns=3),
    pytest.mark.filterwarnings("default::tests.clients.grpc_parts.ClientKilledWarning"),
]

each_mode = pytest.mark.parametrize("mode", GRPC_MODES, ids=str)
TARGET = TARGETS[0]
QUIET_S = 0.3
SOON_S = 10.0
# Clients that other tests' restarts of the server left without one come back when their patience ends.
BACK_S = 60.0


class Clients:
    """A server process, three backends, and clients that are started when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ending = ExitStack()
        self._authority = Authority(directory)
        self.backends = {name: Backend(name) for name in ("one", "two", "three")}
        for backend in self.backends.values():
            self._ending.callback(backend.stop)
        self.server = ServerProcess(self._authority, directory / "server.log")
        self._ending.callback(self.server.close)
        self.contents = {mode: GrpcContents([self.backends["one"].port]) for mode in GRPC_MODES}
        for mode in GRPC_MODES:
            self.publish(mode)
        self.server.start()
        self._clients: dict[GrpcMode, GrpcClient] = {}
        # The number of the first stream of each client that is not the server's first of the mode.
        self._streams: dict[GrpcMode, int] = {}

    def close(self) -> None:
        """End every part, the last first."""
        self._ending.close()

    def publish(self, mode: GrpcMode) -> None:
        """Let the server have a mode's contents as they are now."""
        self.server.set(str(mode), self.contents[mode].messages())

    def client(self, mode: GrpcMode) -> GrpcClient:
        """The mode's client."""
        if mode not in self._clients:
            bootstrap = write_bootstrap(mode, self.server, self._authority, self._directory)
            self._streams[mode] = [event[0] for event in self.server.events(str(mode))].count("opened")
            client = GrpcClient(command_of(mode), bootstrap, self._directory / f"{mode}.log")
            self._ending.callback(client.stop)
            self._clients[mode] = client
        return self._clients[mode]

    def begin(self, mode: GrpcMode) -> int:
        """Give a mode its first contents, whatever was made of it; where to look from for what happens later.

        A client that a signal has ended, and no other, is started anew, with a warning.
        """
        client = self._clients.get(mode)
        if client is not None and (cause := client.killed_by()) is not None:
            warnings.warn(f"{mode}: {cause.name} has ended gRPC's client; another is started", ClientKilledWarning, 2)
            del self._clients[mode]
        self.contents[mode] = GrpcContents([self.backends["one"].port])
        self.publish(mode)
        self.wait_for_answers(mode, {"one"}, is_rerouted=True)
        return self.settle(mode)

    def restart_server(self, mode: GrpcMode) -> None:
        """Kill the server and start another, with what a mode has been given meanwhile, while its calls flow."""
        self.server.stop(signal.SIGKILL)
        assert self.client(mode).call(TARGET, 20).errors == [], "calls must flow without a control plane"
        self.publish(mode)
        self.server.start()
        self._streams.clear()

    def wait_for_answers(
        self, mode: GrpcMode, names: set[str], *, target: str = TARGET, is_rerouted: bool = False
    ) -> None:
        """Wait until just these backends answer, and no call fails meanwhile."""
        # The client in Go lets calls go by a new route a moment before it lets them find the new route's clusters.
        tolerated = "unknown cluster selected" if is_rerouted and mode.language == "grpc-go" else None

        def answer() -> bool:
            calls = self.client(mode).call(target, 40)
            assert [error for error in calls.errors if tolerated is None or tolerated not in error] == []
            return not calls.errors and calls.answers.keys() == names

        wait_until(answer, f"{names} answer {mode}", timeout_s=SOON_S)

    def settle(self, mode: GrpcMode) -> int:
        """Wait until the mode's client has taken all; where to look from for what happens later."""
        # It asks for nothing before its first call.
        if not self.events(mode):
            self.client(mode).call(TARGET, 1)

        def is_settled() -> bool:
            count = self.server.events_count()
            time.sleep(0.1)
            is_still = self.server.events_count() == count
            return is_still and self.events(mode)[-1:] == [["synced"]]

        try:
            wait_until(is_settled, f"{mode} is settled", timeout_s=BACK_S)
        except AssertionError as error:
            error.add_note(f"its streams: {self.server.streams(str(mode))}; looked at: {self._streams.get(mode, 0)}")
            raise
        return self.server.events_count()

    def events(self, mode: GrpcMode, *, since: int = 0) -> list[list[str]]:
        """What happened on the first stream of the mode's client, which has a stream for each target."""
        return self.server.events(str(mode), since=since, stream=self._streams.get(mode, 0))

    def sent(self, mode: GrpcMode, *, since: int = 0) -> list[str]:
        """The types of the responses on that stream."""
        return [event[1] for event in self.events(mode, since=since) if event[0] == "sent"]

    def refusals(self, mode: GrpcMode, *, since: int) -> list[str]:
        """What the mode's client has refused on that stream."""
        return [event[3] for event in self.events(mode, since=since) if event[0] == "rejected"]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    clients = Clients(tmp_path_factory.mktemp("grpc"))
    yield clients
    clients.close()


@pytest.fixture
def since(clients: Clients, mode: GrpcMode) -> int:
    """Where to look from for what happens in this test: any may come first, or after one that has failed."""
    return clients.begin(mode)


@each_mode
def test_calls_flow(clients: Clients, mode: GrpcMode, since: int) -> None:
    """Proxyless gRPC is served what it needs, over plaintext and mutual TLS (rules 33, 34, 56)."""
    assert len(clients.contents[mode].messages()) == COUNT == 29
    for target in TARGETS:
        clients.wait_for_answers(mode, {"one"}, target=target)
    # Of a client that has come back the stream is another, which has all of it as well.
    assert set(clients.sent(mode)) == {LISTENER, ROUTE, CLUSTER, ENDPOINT}
    assert clients.refusals(mode, since=since) == []


@each_mode
def test_endpoints_change(clients: Clients, mode: GrpcMode, since: int) -> None:
    contents = clients.contents[mode]
    for names in ({"two"}, {"one", "two", "three"}, {"one"}):
        contents.backends = [clients.backends[name].port for name in sorted(names)]
        clients.publish(mode)
        clients.wait_for_answers(mode, names)
    assert clients.refusals(mode, since=since) == []


@each_mode
def test_routes_move_before_clusters_go(clients: Clients, mode: GrpcMode, since: int) -> None:
    """A route to fewer clusters and back, with those that it leaves removed at once: no call fails (rules 35, 49)."""
    contents = clients.contents[mode]
    contents.others["g7"] = [clients.backends["three"].port]
    contents.only_cluster = "g7"
    contents.removed = {f"{kind}/g{number}" for kind in ("cds", "eds") for number in range(13) if number != 7}
    clients.publish(mode)
    clients.wait_for_answers(mode, {"three"})
    clients.settle(mode)
    # A client that gives clusters up before they are removed is not told of it; one in Go asks for some once more.
    route, *later = (kind for kind in clients.sent(mode, since=since) if kind != ENDPOINT)
    assert route == ROUTE
    assert set(later) <= {CLUSTER}
    contents.others, contents.only_cluster, contents.removed = {}, None, set()
    clients.publish(mode)
    clients.wait_for_answers(mode, {"one"}, is_rerouted=True)
    assert clients.refusals(mode, since=since) == []


@each_mode
def test_what_is_refused_is_not_sent_again(clients: Clients, mode: GrpcMode, since: int) -> None:
    """A NACK of gRPC's: silence about it, other types and other resources flow, it recovers (rules 10, 11, 12)."""
    contents = clients.contents[mode]
    # Priorities must begin with 0 and have no gap.
    contents.priorities = {"g0": 2}
    clients.publish(mode)
    wait_until(lambda: clients.refusals(mode, since=since), "the client refuses the assignment", timeout_s=SOON_S)
    time.sleep(QUIET_S)
    events = clients.events(mode, since=since)
    assert [event[0] for event in events if event[1:2] == [ENDPOINT]] == ["sent", "rejected"]
    (refusal,) = clients.refusals(mode, since=since)
    assert "priority" in refusal
    # What it had before is still in force.
    assert clients.client(mode).call(TARGET, 40).errors == []
    contents.others["g1"] = [clients.backends["two"].port]
    clients.publish(mode)
    clients.wait_for_answers(mode, {"one", "two"})
    contents.only_cluster = "g1"
    clients.publish(mode)
    clients.wait_for_answers(mode, {"two"}, is_rerouted=True)
    assert len(clients.refusals(mode, since=since)) == 1
    contents.priorities, contents.others, contents.only_cluster = {}, {"g0": [clients.backends["three"].port]}, "g0"
    clients.publish(mode)
    clients.wait_for_answers(mode, {"three"}, is_rerouted=True)
    contents.others, contents.only_cluster = {}, None
    clients.publish(mode)
    clients.wait_for_answers(mode, {"one"}, is_rerouted=True)
    assert len(clients.refusals(mode, since=since)) == 1


@each_mode
def test_server_restarts(clients: Clients, mode: GrpcMode, since: int) -> None:
    """Calls flow all the while, and what changed while there was no server arrives (rules 18, 22, 42)."""
    assert clients.refusals(mode, since=since) == []
    clients.contents[mode].others = {"g4": [clients.backends["two"].port]}
    clients.restart_server(mode)
    clients.wait_for_answers(mode, {"one", "two"})
    clients.settle(mode)
    time.sleep(QUIET_S)
    # The new server counts from 0.
    assert clients.refusals(mode, since=0) == []
    # By names a client of this variant cannot say what it holds: one answer for each type, and no second one.
    assert sorted(clients.sent(mode)) == sorted((LISTENER, ROUTE, CLUSTER, ENDPOINT))


@pytest.mark.parametrize("mode", GRPC_MODES[:1], ids=str)
def test_client_that_a_signal_ended_is_another_in_the_next_test(clients: Clients, mode: GrpcMode, since: int) -> None:
    """What crashes within gRPC is the trouble of one test, and is told of."""
    os.kill(clients.client(mode).pid, signal.SIGSEGV)
    with pytest.raises(ClientKilledError, match="SIGSEGV"):
        clients.client(mode).call(TARGET, 1)
    with pytest.warns(ClientKilledWarning, match="SIGSEGV has ended"):
        assert clients.begin(mode) > since
    assert set(clients.sent(mode)) == {LISTENER, ROUTE, CLUSTER, ENDPOINT}


def test_client_that_ends_itself_is_an_error(tmp_path: Path) -> None:
    client = GrpcClient([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "bootstrap", tmp_path / "log")
    with pytest.raises(AssertionError, match="has ended with 3"):
        client.call(TARGET, 1)
    assert client.killed_by() is None
    client.stop()
