"""gRPC's own xDS clients, in C (grpcio) and Go: calls flow, whatever changes, is refused or restarts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients.authority import Authority
from tests.clients.grpc_contents import COUNT, TARGETS, GrpcContents
from tests.clients.grpc_parts import GRPC_MODES, Backend, GrpcClient, GrpcMode, command_of, write_bootstrap
from tests.clients.xds_server import ServerProcess, wait_until

from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE

pytestmark = pytest.mark.envoy

each_mode = pytest.mark.parametrize("mode", GRPC_MODES, ids=str)
TARGET = TARGETS[0]
QUIET_S = 0.3
SOON_S = 10.0


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
            client = GrpcClient(command_of(mode), bootstrap, self._directory / f"{mode}.log")
            self._ending.callback(client.stop)
            self._clients[mode] = client
        return self._clients[mode]

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

        wait_until(is_settled, f"{mode} is settled", timeout_s=SOON_S)
        return self.server.events_count()

    def events(self, mode: GrpcMode, *, since: int = 0) -> list[list[str]]:
        """What happened on the first stream of the mode's client, which has a stream for each target."""
        return self.server.events(str(mode), since=since, stream=0)

    def sent(self, mode: GrpcMode, *, since: int = 0) -> list[str]:
        """The types of the responses on that stream."""
        return [event[1] for event in self.events(mode, since=since) if event[0] == "sent"]

    def refusals(self, mode: GrpcMode) -> list[str]:
        """What the mode's client has refused on that stream since the server started."""
        return [event[3] for event in self.events(mode) if event[0] == "rejected"]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    clients = Clients(tmp_path_factory.mktemp("grpc"))
    yield clients
    clients.close()


@each_mode
def test_calls_flow(clients: Clients, mode: GrpcMode) -> None:
    """Proxyless gRPC is served what it needs, over plaintext and mutual TLS (rules 33, 34, 56)."""
    assert len(clients.contents[mode].messages()) == COUNT == 29
    for target in TARGETS:
        clients.wait_for_answers(mode, {"one"}, target=target)
    assert set(clients.sent(mode)) == {LISTENER, ROUTE, CLUSTER, ENDPOINT}
    assert clients.refusals(mode) == []


@each_mode
def test_endpoints_change(clients: Clients, mode: GrpcMode) -> None:
    contents = clients.contents[mode]
    for names in ({"two"}, {"one", "two", "three"}, {"one"}):
        contents.backends = [clients.backends[name].port for name in sorted(names)]
        clients.publish(mode)
        clients.wait_for_answers(mode, names)
    assert clients.refusals(mode) == []


@each_mode
def test_routes_move_before_clusters_go(clients: Clients, mode: GrpcMode) -> None:
    """A route to fewer clusters and back, with those that it leaves removed at once: no call fails (rules 35, 49)."""
    contents = clients.contents[mode]
    since = clients.settle(mode)
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
    assert clients.refusals(mode) == []


@each_mode
def test_what_is_refused_is_not_sent_again(clients: Clients, mode: GrpcMode) -> None:
    """A NACK of gRPC's: silence about it, other types and other resources flow, it recovers (rules 10, 11, 12)."""
    contents = clients.contents[mode]
    since = clients.settle(mode)
    # Priorities must begin with 0 and have no gap.
    contents.priorities = {"g0": 2}
    clients.publish(mode)
    wait_until(lambda: clients.refusals(mode), "the client refuses the assignment", timeout_s=SOON_S)
    time.sleep(QUIET_S)
    events = clients.events(mode, since=since)
    assert [event[0] for event in events if event[1:2] == [ENDPOINT]] == ["sent", "rejected"]
    (refusal,) = clients.refusals(mode)
    assert "priority" in refusal
    # What it had before is still in force.
    assert clients.client(mode).call(TARGET, 40).errors == []
    contents.others["g1"] = [clients.backends["two"].port]
    clients.publish(mode)
    clients.wait_for_answers(mode, {"one", "two"})
    contents.only_cluster = "g1"
    clients.publish(mode)
    clients.wait_for_answers(mode, {"two"}, is_rerouted=True)
    assert len(clients.refusals(mode)) == 1
    contents.priorities, contents.others, contents.only_cluster = {}, {"g0": [clients.backends["three"].port]}, "g0"
    clients.publish(mode)
    clients.wait_for_answers(mode, {"three"}, is_rerouted=True)
    contents.others, contents.only_cluster = {}, None
    clients.publish(mode)
    clients.wait_for_answers(mode, {"one"}, is_rerouted=True)
    assert len(clients.refusals(mode)) == 1


@pytest.fixture(scope="module")
def restarted(clients: Clients) -> list[GrpcMode]:
    """The modes whose clients held 29 resources when the server was killed and another one with a change came."""
    modes = list(clients._clients)
    for mode in modes:
        clients.wait_for_answers(mode, {"one"})
        clients.settle(mode)
    clients.server.stop(signal.SIGKILL)
    for mode in modes:
        assert clients.client(mode).call(TARGET, 20).errors == [], "calls must flow without a control plane"
        clients.contents[mode].others = {"g4": [clients.backends["two"].port]}
        clients.publish(mode)
    clients.server.start()
    return modes


@each_mode
def test_server_restarts(clients: Clients, restarted: list[GrpcMode], mode: GrpcMode) -> None:
    """Calls flow all the while, and what changed while there was no server arrives (rules 18, 22, 42)."""
    if mode not in restarted:
        pytest.skip("the client could not be started")
    clients.wait_for_answers(mode, {"one", "two"})
    clients.settle(mode)
    time.sleep(QUIET_S)
    assert clients.refusals(mode) == []
    # By names a client of this variant cannot say what it holds: one answer for each type, and no second one.
    assert sorted(clients.sent(mode)) == sorted((LISTENER, ROUTE, CLUSTER, ENDPOINT))
