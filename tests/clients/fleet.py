"""One server process and an Envoy for each mode, all with contents of their own, that tests alter and look at."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from tests.clients.authority import Authority
from tests.clients.envoy_contents import LISTENERS, EnvoyContents
from tests.clients.raw_envoy import Mode, RawEnvoy
from tests.clients.xds_server import ServerProcess, wait_until
from tests.envoy.harness import EchoService
from tests.ports import free_ports

# What moves when an Envoy refuses something, or gives up waiting for it.
_TROUBLE = "(update_rejected|update_failure|init_fetch_timeout)$"
# What moves when an Envoy applies something, be it what it had already.
_APPLIED = (
    "(cluster_added|cluster_modified|cluster_removed|listener_added|listener_modified|listener_removed"
    "|config_reload|update_success|membership_change|ssl_context_update_by_sds|key_rotation_failed)$"
)


class Fleet:
    """Starts all parts; `close` ends them."""

    def __init__(self, binary: str, modes: Iterable[Mode], directory: Path) -> None:
        self.modes = tuple(modes)
        self._ending = ExitStack()
        self.authority = Authority(directory)
        self.one, self.two = EchoService("one"), EchoService("two")
        self._ending.callback(self.one.stop)
        self._ending.callback(self.two.stop)
        self.server = ServerProcess(self.authority, directory / "server.log")
        self._ending.callback(self.server.close)
        ports = iter(free_ports((LISTENERS + 1) * len(self.modes)))
        self.contents: dict[Mode, EnvoyContents] = {}
        for mode in self.modes:
            mine = [next(ports) for _ in range(LISTENERS)]
            self.contents[mode] = EnvoyContents(mode, self.authority, mine, self.one.port)
            self.publish(mode)
        self.server.start()
        self.envoys: dict[Mode, RawEnvoy] = {}
        for mode in self.modes:
            envoy = RawEnvoy(binary, mode, self.server, self.authority, directory, admin_port=next(ports))
            self._ending.callback(envoy.stop)
            self.envoys[mode] = envoy
        for envoy in self.envoys.values():
            envoy.wait_ready()

    def close(self) -> None:
        """End every part, the last first."""
        self._ending.close()

    def publish(self, mode: Mode) -> None:
        """Let the server have a mode's contents as they are now."""
        self.server.set(str(mode), self.contents[mode].messages())

    def get(self, mode: Mode, listener: int, path: str = "/") -> httpx.Response:
        """One request through a listener of the mode's Envoy."""
        # A connection of its own: one that was kept could end in a listener that is draining.
        return httpx.get(f"http://127.0.0.1:{self.contents[mode].ports[listener]}{path}", timeout=5)

    def answers(self, mode: Mode, listener: int) -> str:
        """Who answers a request through a listener; what went wrong where nobody does."""
        try:
            response = self.get(mode, listener)
        except httpx.TransportError as error:
            return repr(error)
        return str(response.json()["instance"]) if response.status_code == 200 else response.text

    def certificate_name(self, mode: Mode, listener: int) -> str:
        """The common name in the certificate that a listener shows."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(self.authority.client.certificate, self.authority.client.key)
        address = ("127.0.0.1", self.contents[mode].ports[listener])
        with (
            socket.create_connection(address, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            subject: Any = (secured.getpeercert() or {})["subject"]
        return str(subject[0][0][1])

    def trouble(self, mode: Mode) -> dict[str, int]:
        """What the mode's Envoy has refused, missed or waited for in vain since it started."""
        return {name: value for name, value in self.envoys[mode].stats(_TROUBLE).items() if value}

    def trouble_but_for_the_absence(self, mode: Mode) -> dict[str, int]:
        """The same without what an Envoy counts because there is no server for a while."""
        return {name: value for name, value in self.trouble(mode).items() if not name.endswith("update_failure")}

    def applied(self, mode: Mode) -> dict[str, int]:
        """How often the mode's Envoy has applied what, without its own cluster of the control plane."""
        stats = self.envoys[mode].stats(_APPLIED)
        return {name: value for name, value in stats.items() if not name.startswith("cluster.xds.")}

    def expected(self, mode: Mode) -> set[str]:
        """What the mode's Envoy has to hold, as `TYPE/NAME`."""
        kinds = {
            "Cluster": "cds",
            "ClusterLoadAssignment": "eds",
            "Listener": "lds",
            "RouteConfiguration": "rds",
            "Secret": "sds",
        }
        return {f"{kinds[message.DESCRIPTOR.name]}/{name}" for name, message in self.contents[mode].messages()}

    def wait_for_exactly_the_contents(self, mode: Mode) -> None:
        """Wait until the mode's Envoy holds what it was sent, all of it active, and nothing else."""

        wait_until(lambda: self._holds_the_contents(mode), f"{mode} holds exactly what it was sent", timeout_s=10)

    def is_settled(self, mode: Mode) -> bool:
        """Whether the mode's Envoy has answered all that it was sent, and holds what it has to."""
        return not self.server.unanswered(str(mode)) and self._holds_the_contents(mode)

    def _holds_the_contents(self, mode: Mode) -> bool:
        dump = self.envoys[mode].dump()
        return dump.keys() == self.expected(mode) and not any("warming_state" in entry for entry in dump.values())

    def stream_count(self, mode: Mode) -> int:
        """How many streams of the mode's Envoy the server process has now."""
        kinds = [event[0] for event in self.server.events(str(mode))]
        return kinds.count("opened") - kinds.count("closed")

    def restart_server(self, how: signal.Signals, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """End the server process and start another on the same ports; returns when every Envoy is back."""
        counts = {mode: self.stream_count(mode) for mode in self.modes}
        self.server.stop(how)
        meanwhile()
        self.server.start()

        def are_back() -> bool:
            # Of an Envoy with a stream for each cluster those of clusters that have gone may come no more.
            return all(self.stream_count(mode) >= min(counts[mode], len(self.expected(mode)) // 2) for mode in counts)

        wait_until(are_back, "all Envoys are back")
