"""Certificates, authorities and modes change under load, between real sidecars, and no request is lost.

`KUMAFAST_ROTATION_S=180` is the long form: certificates of 20 s, for three minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, Process, Sidecar, free_port, rejected, wait_until
from tests.envoy.load import Load
from tests.envoy.test_mtls import EVERYBODY, certificate_at, issuer_at, secured, write

pytestmark = [pytest.mark.envoy, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]

RATE = 200.0
DURATION_S = float(os.environ.get("KUMAFAST_ROTATION_S", "25"))
LIFE_S = 20 if DURATION_S >= 120 else 8
RAW = {"kuma.io/service": "raw"}

Tell = Callable[[str], None]


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Show a figure, whether it is within its bound or not."""

    def show(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {line}")

    return show


def serve(mesh: Mesh, name: str, *, service: str, protocol: str) -> Sidecar:
    """A workload in a process of its own, and its sidecar."""
    port, service_port = free_port(), free_port()
    command = [sys.executable, "-m", "kumafast.cli.demo_echo", name, str(service_port)]
    workload = Process(command, mesh.directory / f"{name}-workload.log")
    mesh.ending.callback(workload.stop)
    tags = {"kuma.io/service": service, "kuma.io/protocol": protocol}
    mesh.inbound_ports[name] = port
    return mesh.sidecar(name, inbound=[{"port": port, "servicePort": service_port, "tags": tags}])


class Pair:
    """Two services and a client of each: requests on connections that are kept, and on new ones."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        # HTTP requests share long-lived connections between sidecars; of TCP each has its own, with its own handshake.
        self.sidecars = [serve(mesh, "echo-1", service="echo", protocol="http")]
        self.sidecars.append(serve(mesh, "raw-1", service="raw", protocol="tcp"))
        kept, (kept_port,) = mesh.client("web-1", ECHO)
        fresh, (fresh_port,) = mesh.client("web-2", RAW)
        self.sidecars += [kept, fresh]
        self.kept, self.fresh = Load(kept_port, rate=RATE), Load(fresh_port, rate=RATE, is_fresh=True)
        write(mesh, EVERYBODY)
        for port in (kept_port, fresh_port):
            wait_until(partial(is_answered, port), "it answers")

    @contextlib.contextmanager
    def under_load(self) -> Iterator[None]:
        with self.kept.running(), self.fresh.running():
            yield

    def inbounds(self) -> list[int]:
        return [self.mesh.inbound_ports[name] for name in ("echo-1", "raw-1")]

    def handshakes(self) -> int:
        """How many TLS connections the services' sidecars have taken."""
        return sum(sum(sidecar.stats(r"^listener\..*ssl\.handshake$").values()) for sidecar in self.sidecars[:2])

    def assert_nothing_lost(self) -> None:
        assert self.kept.failures == self.fresh.failures == []
        for sidecar in self.sidecars:
            counts = sidecar.stats("ssl.(fail_verify|connection_error)|upstream_cx_connect_fail|rq_error")
            # The test itself connects to inbounds, without a certificate, to see whose is shown.
            named = {name: value for name, value in counts.items() if value and name.startswith("cluster.")}
            assert named == {}, sidecar.name
            assert rejected(sidecar) == []


def is_answered(port: int) -> bool:
    """Whether a request through a sidecar is answered."""
    return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200


def processor_seconds(pid: int) -> float:
    """What a process has taken since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def secret_pushes(mesh: Mesh) -> int:
    """How many responses with secrets the control plane has sent."""
    return sum(int(value) for name, value in mesh.control_plane.metrics().items() if is_push_of_secrets(name))


def is_push_of_secrets(name: str) -> bool:
    return name.startswith("kumafast_xds_pushes_total") and "Secret" in name


def test_certificates_and_their_authority_change_under_load(delta_mesh: Mesh, tell: Tell) -> None:
    mesh = delta_mesh
    pair = Pair(mesh)
    life = f"{LIFE_S}s"
    write(mesh, secured("ca-1", enabled="ca-1", mode="PERMISSIVE", life=life))
    write(mesh, secured("ca-1", "ca-2", enabled="ca-1", life=life))
    wait_until(lambda: all(issuer_at(port) for port in pair.inbounds()), "TLS is in force")
    first = [certificate_at(port) for port in pair.inbounds()]
    assert mesh.control_plane.process is not None
    pid = mesh.control_plane.process.child.pid
    issued = mesh.control_plane.metrics()["kumafast_certificates_issued_total"]
    seconds, pushes, handshakes = processor_seconds(pid), secret_pushes(mesh), pair.handshakes()
    began = time.monotonic()
    with pair.under_load():
        time.sleep(DURATION_S / 3)
        write(mesh, secured("ca-1", "ca-2", enabled="ca-2", life=life))
        time.sleep(max(0.0, began + DURATION_S - time.monotonic()))
    lasted = time.monotonic() - began
    used = processor_seconds(pid) - seconds
    issued = mesh.control_plane.metrics()["kumafast_certificates_issued_total"] - issued
    pushes, handshakes = secret_pushes(mesh) - pushes, pair.handshakes() - handshakes
    tell(f"{pair.kept.answered} requests on kept connections, {pair.fresh.answered} on new ones, in {lasted:.0f} s")
    tell(f"{handshakes} handshakes, {issued:.0f} certificates issued, {pushes} pushes of secrets")
    tell(f"control plane: {used:.2f} s CPU, {100 * used / lasted:.1f} % of a core")
    pair.assert_nothing_lost()
    for before, port in zip(first, pair.inbounds(), strict=True):
        now = certificate_at(port)
        assert before is not None
        assert now is not None
        assert now.issuer != before.issuer
    assert handshakes >= pair.fresh.answered
    # Each proxy has another every four fifths of a life, and one more by the new authority.
    expected = len(pair.sidecars) * (lasted / (0.8 * LIFE_S) + 1)
    assert expected - 2 * len(pair.sidecars) <= issued <= expected + len(pair.sidecars)
    # Beside certificates there are the authorities: the new one comes, the old one goes.
    assert pushes <= issued + 3 * len(pair.sidecars)
    assert pair.kept.answered + pair.fresh.answered > RATE * lasted / 2


def test_from_permissive_to_strict_no_client_with_a_certificate_loses_a_request(delta_mesh: Mesh, tell: Tell) -> None:
    mesh = delta_mesh
    pair = Pair(mesh)
    write(mesh, secured("ca-1", enabled="ca-1", mode="PERMISSIVE"))
    wait_until(lambda: all(issuer_at(port) for port in pair.inbounds()), "TLS is in force")
    outside = [Load(port, rate=50, is_fresh=True) for port in pair.inbounds()]
    with pair.under_load(), outside[0].running(), outside[1].running():
        wait_until(lambda: is_all_by_tls(pair), "the clients of the mesh use TLS")
        time.sleep(1)
        asked = time.monotonic()
        taken = write(mesh, secured("ca-1", enabled="ca-1"))
        time.sleep(2)
    tell(f"strict on all sidecars after {taken * 1000:.0f} ms")
    pair.assert_nothing_lost()
    for load in outside:
        # Served in plaintext for as long as the mesh was permissive, and refused from then on.
        assert load.answered > 30
        assert [failure for failure in load.failures if failure[0] < asked] == []
        assert len(load.failures) > 10


def is_all_by_tls(pair: Pair) -> bool:
    """Whether the clients' clusters have met a TLS server."""
    return all(sum(sidecar.stats(r"^cluster\.(echo|raw)\.ssl\.handshake$").values()) for sidecar in pair.sidecars[2:])


def warming(sidecar: Sidecar) -> list[str]:
    """What an Envoy has been sent and does not use yet."""
    dump = json.dumps(sidecar.config_dump())
    return [word for word in ('"dynamic_warming_clusters"', '"warming_state"') if word in dump]


@pytest.mark.parametrize("uses_delta", [True, False], ids=["delta", "sotw"])
def test_what_changes_under_tls_is_active_at_once(
    tmp_path: Path, envoy_binary: str, uses_delta: bool, tell: Tell
) -> None:
    """Envoy holds the secrets already, and does not ask for them again: nothing waits for its fetch to time out."""
    mesh = Mesh(tmp_path, envoy_binary, uses_delta=uses_delta)
    with mesh.ending:
        pair = Pair(mesh)
        write(mesh, secured("ca-1", enabled="ca-1"))
        wait_until(lambda: all(issuer_at(port) for port in pair.inbounds()), "TLS is in force")
        for seconds in (3, 4):
            taken = time_to_active(pair, seconds)
            tell(f"a policy is active on all sidecars {taken * 1000:.0f} ms after its write began")
        # Without TLS nobody wants the secrets any more; with it again they are asked for anew.
        write(mesh, {"type": "Mesh", "name": "default"})
        write(mesh, secured("ca-1", enabled="ca-1"))
        wait_until(lambda: not any(map(warming, pair.sidecars)), "nothing is warming", timeout_s=5)
        with pair.under_load():
            time.sleep(1)
        pair.assert_nothing_lost()


def time_to_active(pair: Pair, seconds: int) -> float:
    """Write policies that change every cluster and listener; how long it took until Envoys used them."""
    api = pair.mesh.control_plane.api
    to = {"connectionTimeout": f"{seconds}s", "http": {"requestTimeout": f"{seconds + 20}s"}}
    inward = {"idleTimeout": f"{seconds + 40}s"}
    # Of policies for the same dataplanes the first name counts, also beside that which a mesh begins with.
    specs: dict[str, dict[str, Any]] = {
        "a-out": {"to": [{"targetRef": {"kind": "Mesh"}, "default": to}]},
        "a-in": {"rules": [{"default": inward}]},
    }
    began = time.monotonic()
    for name, about in specs.items():
        spec = {"targetRef": {"kind": "Mesh"}, **about}
        document = {"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec}
        answer = httpx.put(f"{api}/meshes/default/meshtimeouts/{name}", json=document)
        assert answer.status_code in (200, 201), answer.text
    report = pair.mesh.control_plane.converge(int(answer.headers["X-Kumafast-Revision"]))
    assert report["is_converged"], report
    client = pair.sidecars[2]
    wait_until(lambda: active_timeout(client, "echo") == f"{seconds}s", "the cluster is active", timeout_s=5)
    wait_until(lambda: not any(map(warming, pair.sidecars)), "nothing is warming", timeout_s=5)
    return time.monotonic() - began


def active_timeout(sidecar: Sidecar, cluster: str) -> str:
    """The connection time-out of a cluster as Envoy uses it."""
    configs = sidecar.config_dump()["configs"]
    active = next(each for each in configs if "ClustersConfigDump" in each["@type"])["dynamic_active_clusters"]
    found = [each["cluster"]["connect_timeout"] for each in active if each["cluster"]["name"] == cluster]
    return str(found[0])
