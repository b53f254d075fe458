"""How an endpoint is chosen, seen in traffic: by what a request says, and by what is near."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, free_port, rejected, wait_until

pytestmark = pytest.mark.envoy

REQUESTS = 1_000
TO_ECHO = {"kind": "MeshService", "name": "echo"}


class Scene:
    """A client in the same rack as one of two instances."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.services = {rack: mesh.echo(f"echo-{rack}", rack=rack)[0] for rack in ("a", "b")}
        self.port = free_port()
        inbound = {"port": free_port(), "tags": {"kuma.io/service": "web", "rack": "a"}}
        self.client = mesh.sidecar("web-1", inbound=[inbound], outbound=[{"port": self.port, "tags": ECHO}])
        self.http = httpx.Client(timeout=5)
        mesh.ending.callback(self.http.close)
        wait_until(lambda: self.instances(40).keys() == {"echo-a", "echo-b"}, "both instances answer")

    def instances(self, count: int, **headers: str) -> Counter[str]:
        """Who answered so many requests."""
        url = f"http://127.0.0.1:{self.port}/"
        return Counter(self.http.get(url, headers=headers).json()["instance"] for _ in range(count))

    @contextmanager
    def strategy(self, **conf: Any) -> Iterator[None]:
        """Have a strategy while in the block."""
        spec = {"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": TO_ECHO, "default": conf}]}
        with self.mesh.control_plane.policy("meshloadbalancingstrategies", type="MeshLoadBalancingStrategy", spec=spec):
            yield
        assert rejected(self.client) == []


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Scene]:
    mesh = Mesh(tmp_path_factory.mktemp("balancing"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Scene(mesh)


@pytest.mark.parametrize("kind", ["RingHash", "Maglev"])
def test_requests_of_one_user_go_to_one_instance(scene: Scene, kind: str) -> None:
    hashes = [{"type": "Header", "header": {"name": "x-user"}}]

    def chosen() -> set[frozenset[str]]:
        return {frozenset(scene.instances(10, **{"x-user": f"user-{user}"})) for user in range(20)}

    with scene.strategy(loadBalancer={"type": kind}, hashPolicies=hashes):
        # A connection that is open when its listener is replaced has its next answer by the old one.
        wait_until(lambda: chosen() == {frozenset({"echo-a"}), frozenset({"echo-b"})}, "each user has an instance")
        assert chosen() == {frozenset({"echo-a"}), frozenset({"echo-b"})}


def test_the_instance_of_the_own_rack_gets_nine_of_ten_requests_within_six_sigma(scene: Scene) -> None:
    with scene.strategy(localityAwareness={"localZone": {"affinityTags": [{"key": "rack"}]}}):
        answers = scene.instances(REQUESTS)
    assert abs(answers["echo-b"] - 0.1 * REQUESTS) < 6 * math.sqrt(REQUESTS * 0.1 * 0.9)
