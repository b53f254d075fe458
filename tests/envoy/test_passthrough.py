"""What goes out of a transparent proxy and what does not, seen in traffic.

No traffic is redirected here. A patch has the sidecar's port for redirected traffic take the address that a connection
was going to from a line before it (the PROXY protocol), which it would otherwise ask the host for.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.envoy.harness import EchoService, Mesh, free_port, rejected, wait_until

pytestmark = pytest.mark.envoy

SIDECARS = {"kind": "Mesh", "proxyTypes": ["Sidecar"]}
REFUSED = 0
TOLD: dict[str, Any] = {
    "name": "envoy.filters.listener.proxy_protocol",
    "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
}


class Outward:
    """A transparent proxy, and two servers that are not in its mesh."""

    def __init__(self, mesh: Mesh, name: str = "web-1") -> None:
        self.mesh = mesh
        self.port = free_port()
        self.name = name
        inbound = {"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": name[:-2]}}
        proxying = {"redirectPortInbound": free_port(), "redirectPortOutbound": self.port}
        self.client = mesh.sidecar(name, inbound=[inbound], transparentProxying=proxying)
        self.servers = {name: EchoService(name) for name in ("one", "two")}
        for server in self.servers.values():
            mesh.ending.callback(server.stop)

    def told(self, path: str, value: Any) -> contextlib.AbstractContextManager[None]:
        """Have the sidecar read where a connection was going, in the block."""
        patch = {"op": "add", "path": path, "value": value}
        change = {"operation": "Patch", "match": {"name": "outbound:passthrough:ipv4"}, "jsonPatches": [patch]}
        whom = {"kind": "Dataplane", "name": self.name}
        spec = {"targetRef": whom, "default": {"appendModifications": [{"listener": change}]}}
        return self.mesh.control_plane.policy("meshproxypatches", type="MeshProxyPatch", spec=spec)

    def passthrough(self, **conf: Any) -> contextlib.AbstractContextManager[None]:
        """Have a policy in the block."""
        spec = {"targetRef": SIDECARS, "default": conf}
        return self.mesh.control_plane.policy("meshpassthroughs", type="MeshPassthrough", spec=spec)

    def get(self, name: str, host: str, address: str = "127.0.0.1") -> tuple[int, str]:
        """The status and text of an answer to what was sent to a server's port at an address; 0 where it is cut off."""
        port = self.servers[name].port
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(f"PROXY TCP4 127.0.0.1 {address} 40000 {port}\r\n".encode())
            connection.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            received = b""
            with contextlib.suppress(ConnectionError):
                while data := connection.recv(65_536):
                    received += data
        head, _, body = received.decode().partition("\r\n\r\n")
        return (int(head.split()[1]), body) if head else (REFUSED, "")


@pytest.fixture(scope="module")
def outward(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Outward]:
    mesh = Mesh(tmp_path_factory.mktemp("passthrough"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Outward(mesh)


def test_all_goes_out_or_nothing(outward: Outward) -> None:
    with outward.told("/listenerFilters", [TOLD]):
        wait_until(lambda: outward.get("one", "one.test")[0] == 200, "everything goes out")
        with outward.passthrough(passthroughMode="None"):
            wait_until(lambda: outward.get("one", "one.test")[0] == REFUSED, "nothing goes out")
        with outward.passthrough(passthroughMode="All"):
            wait_until(lambda: outward.get("two", "two.test")[0] == 200, "everything goes out")
        wait_until(lambda: outward.get("one", "one.test")[0] == 200, "everything goes out without a policy")
    assert rejected(outward.client) == []


def test_nothing_goes_out_where_the_mesh_says_so_but_by_a_policy(outward: Outward) -> None:
    control_plane = outward.mesh.control_plane
    url = f"{control_plane.api}/meshes/default"
    with outward.told("/listenerFilters", [TOLD]):
        wait_until(lambda: outward.get("one", "one.test")[0] == 200, "everything goes out")
        closed = {"type": "Mesh", "name": "default", "networking": {"outbound": {"passthrough": False}}}
        control_plane.settle("PUT", url, closed)
        wait_until(lambda: outward.get("one", "one.test")[0] == REFUSED, "nothing goes out")
        with outward.passthrough(passthroughMode="All"):
            wait_until(lambda: outward.get("two", "two.test")[0] == 200, "everything goes out")
        wait_until(lambda: outward.get("two", "two.test")[0] == REFUSED, "nothing goes out without the policy")
        control_plane.settle("PUT", url, {"type": "Mesh", "name": "default"})
        wait_until(lambda: outward.get("one", "one.test")[0] == 200, "everything goes out again")
    assert rejected(outward.client) == []


def test_what_matches_goes_out_and_nothing_else(outward: Outward) -> None:
    one, two = (outward.servers[name].port for name in ("one", "two"))
    by_name = {"type": "Domain", "value": "localhost", "port": one, "protocol": "http"}
    by_address = {"type": "CIDR", "value": "127.0.0.0/24", "port": two, "protocol": "tcp"}
    with outward.passthrough(appendMatch=[by_name, by_address]), outward.told("/listenerFilters/0", TOLD):
        wait_until(lambda: outward.get("one", f"localhost:{one}")[0] == 200, "the domain is reached")
        assert '"instance": "one"' in outward.get("one", "localhost")[1]
        # Where the client says that the domain is does not count.
        assert outward.get("one", "localhost", address="192.0.2.1")[0] == 200
        status, text = outward.get("one", "other.test")
        assert (status, "MeshPassthrough" in text) == (503, True)
        assert '"instance": "two"' in outward.get("two", "whatever.test")[1]
        assert outward.get("two", "localhost", address="127.0.1.1")[0] == REFUSED
    assert rejected(outward.client) == []
