"""`python -m loadtest.real_envoys` (`make load-envoys N=50`): real Envoys with mTLS, and requests through them.

In: how many Envoys. Out: how many requests were answered and which failed, while services are deployed anew, policies
are edited and the control plane goes away; a report; exit code 1 where one failed or an Envoy refused anything.
Never: a second try of a request, by the load or by the mesh.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bench import document, ending
from bench.flags import count, positive
from bench.real_wires import process_cost
from tests.envoy.harness import EchoService as Echo
from tests.envoy.harness import Mesh, Sidecar, free_port, rejected, wait_until
from tests.envoy.load import Load

from kumafast.cli.envoy import required

ROOT = Path(__file__).resolve().parent.parent
INSTANCES = 2
SERVICES_OF_A_CLIENT = 2
ENVOYS_STEP = 1 + SERVICES_OF_A_CLIENT * INSTANCES
"""A client and the instances of the services that it asks."""
AT_A_TIME = 5
"""So many Envoys begin together."""
START_S_MAX = 180.0
DRAIN_S = 1.0
"""How long an instance that has no clients any more still runs: for what it is answering."""
_TLS = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]},
    # What a try more would make up for is to be seen.
    "skipCreatingInitialPolicies": ["*"],
}
_EVERYBODY = {
    "sources": [{"match": {"kuma.io/service": "*"}}],
    "destinations": [{"match": {"kuma.io/service": "*"}}],
}


@dataclass(slots=True)
class Instance:
    """One workload with its Envoy."""

    name: str
    workload: Echo
    sidecar: Sidecar


class BusyMesh:
    """Services of two instances, a client for each two of them, and a steady load from each client to both."""

    def __init__(self, mesh: Mesh, envoys: int, rate: float) -> None:
        self.mesh = mesh
        self.instances: dict[str, list[Instance]] = {}
        self.clients: list[Sidecar] = []
        self.retired: list[str] = []
        """What Envoys that have ended had refused."""
        self._numbers = itertools.count(1)
        clients = envoys // ENVOYS_STEP
        self.services = [f"service-{number:02}" for number in range(clients * SERVICES_OF_A_CLIENT)]
        ports = self._start(clients)
        self.loads = [Load(port, rate=rate / len(ports)) for port in ports]

    def _start(self, clients: int) -> list[int]:
        for batch in _batches([service for service in self.services for _ in range(INSTANCES)]):
            for service, instance in [(service, self._begin(service)) for service in batch]:
                instance.sidecar.wait_ready()
                self.instances.setdefault(service, []).append(instance)
            _say(f"{sum(map(len, self.instances.values()))} instances serve")
        ports = []
        for number in range(clients):
            first = SERVICES_OF_A_CLIENT * number
            tags = [{"kuma.io/service": each} for each in self.services[first : first + SERVICES_OF_A_CLIENT]]
            sidecar, reached = self.mesh.client(f"client-{number:02}", *tags)
            self.clients.append(sidecar)
            ports += reached
        _say("1 client asks" if clients == 1 else f"{clients} clients ask")
        for port in ports:
            wait_until(lambda port=port: _is_answered(port), "it answers", timeout_s=START_S_MAX)  # type: ignore[misc]
        return ports

    def _begin(self, service: str) -> Instance:
        name = f"{service}-{next(self._numbers)}"
        workload = Echo(name)
        self.mesh.ending.callback(workload.stop)
        tags = {"kuma.io/service": service, "kuma.io/protocol": "http"}
        inbound = {"port": free_port(), "servicePort": workload.port, "tags": tags}
        networking = {"address": "127.0.0.1", "inbound": [inbound]}
        document = {"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}
        sidecar = Sidecar(
            self.mesh.directory, self.mesh.control_plane, document, envoy=self.mesh.envoy, flags=("--concurrency", "1")
        )
        self.mesh.ending.callback(sidecar.stop)
        return Instance(name, workload, sidecar)

    def replace(self, service: str) -> None:
        """Deploy a service anew, one instance at a time: the new one serves before the old one is taken away."""
        for old in tuple(self.instances[service]):
            new = self._begin(service)
            new.sidecar.wait_ready()
            self.instances[service].append(new)
            wait_until(lambda new=new: new.workload.answered, f"{new.name} is asked", timeout_s=START_S_MAX)  # type: ignore[misc]
            revision = self.mesh.control_plane.delete("default", old.name)
            self._converge(revision)
            time.sleep(DRAIN_S)
            self.retired += rejected(old.sidecar)
            old.sidecar.stop()
            self.instances[service].remove(old)

    def edit(self, number: int) -> None:
        """Change time-outs of a service, or of all, and wait until all Envoys run that."""
        to: dict[str, Any] = {"kind": "MeshService", "name": self.services[number % len(self.services)]}
        if number % 4 == 0:
            to = {"kind": "Mesh"}
        conf = {"connectionTimeout": f"{3000 + number}ms", "http": {"requestTimeout": f"{20 + number}s"}}
        spec = {"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": to, "default": conf}]}
        name = f"edit-{number % 4}"
        path = f"/meshes/default/meshtimeouts/{name}"
        self._put(path, {"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec})

    def restart(self, how: signal.Signals) -> None:
        """The control plane goes away, and comes back a moment later; its Envoys with it."""
        self.mesh.control_plane.stop(how)
        time.sleep(1.0)
        self.mesh.control_plane.start()
        envoys = float(len(self.sidecars()))

        def are_all_back() -> bool:
            # Its metrics cost the control plane more than its Envoys do, if they are asked for all the time.
            time.sleep(0.5)
            return self.mesh.control_plane.metrics().get("kumafast_connected_proxies") == envoys

        wait_until(are_all_back, "all Envoys are back", timeout_s=START_S_MAX)

    def secure(self) -> None:
        """TLS for all, and everybody may ask everybody."""
        permission = {"type": "TrafficPermission", "mesh": "default", "name": "everybody", **_EVERYBODY}
        self._put("/meshes/default/traffic-permissions/everybody", permission)
        self._put("/meshes/default", _TLS)

    def sidecars(self) -> list[Sidecar]:
        """All that run."""
        return [instance.sidecar for group in self.instances.values() for instance in group] + self.clients

    def counts(self) -> tuple[int, int]:
        """Requests answered and failed until now."""
        return sum(load.answered for load in self.loads), sum(len(load.failures) for load in self.loads)

    def handshakes(self) -> int:
        """TLS connections that clients' Envoys have made."""
        return sum(sum(client.stats(r"^cluster\.service.*ssl\.handshake$").values()) for client in self.clients)

    def _put(self, path: str, document: dict[str, Any]) -> None:
        answer = httpx.put(self.mesh.control_plane.api + path, json=document, timeout=START_S_MAX)
        assert answer.status_code in (200, 201), answer.text
        self._converge(int(answer.headers["X-Kumafast-Revision"]))

    def _converge(self, revision: int) -> None:
        wait_until(
            lambda: self.mesh.control_plane.converge(revision)["is_converged"],
            f"all run revision {revision}",
            timeout_s=START_S_MAX,
        )


def play(directory: Path, *, envoys: int, rate: float, edits: int, is_restarted: bool) -> dict[str, Any]:
    """All of it; the figures, with what is wrong under `wrong`."""
    flags = ("--log-level", "warning")
    mesh = Mesh(directory, str(required()), uses_delta=True, control_plane_flags=flags, is_warm=False)
    with mesh.ending:
        busy = BusyMesh(mesh, envoys, rate)
        busy.secure()
        phases: dict[str, dict[str, Any]] = {}

        @contextlib.contextmanager
        def phase(name: str) -> Iterator[None]:
            answered, failed = busy.counts()
            began, (pid, cpu) = time.monotonic(), _cpu(mesh)
            yield
            now_answered, now_failed = busy.counts()
            now_pid, now_cpu = _cpu(mesh)
            phases[name] = {
                "seconds": round(time.monotonic() - began, 1),
                "answered": now_answered - answered,
                "failed": now_failed - failed,
                # After another start it is what the new process has used.
                "server_cpu_s": round(now_cpu - cpu if now_pid == pid else now_cpu, 2),
            }
            _say(f"{name}: {now_answered - answered:,} answered, {now_failed - failed:,} failed")

        with contextlib.ExitStack() as running:
            for load in busy.loads:
                running.enter_context(load.running())
            with phase(f"rolling deploy of {len(busy.services)} services"):
                for service in busy.services:
                    busy.replace(service)
            with phase(f"{edits} edits of policies"):
                for number in range(edits):
                    busy.edit(number)
            if is_restarted:
                for how in (signal.SIGTERM, signal.SIGKILL):
                    with phase(f"control plane ended by {how.name}"):
                        busy.restart(how)
                        busy.edit(edits + how)
            handshakes = busy.handshakes()
        return _figures(busy, phases, handshakes, envoys, rate)


def _figures(
    busy: BusyMesh, phases: dict[str, dict[str, Any]], handshakes: int, envoys: int, rate: float
) -> dict[str, Any]:
    answered, failed = busy.counts()
    failures = [f"{problem}" for load in busy.loads for _, problem in load.failures]
    refused = busy.retired + [each for sidecar in busy.sidecars() for each in rejected(sidecar)]
    wrong = [f"failed: {each}" for each in failures[:10]] + [f"refused: {each}" for each in refused[:10]]
    if not handshakes:
        wrong.append("no TLS was spoken")
    return {
        "envoys": envoys,
        "rate": rate,
        "answered": answered,
        "failed": failed,
        "tls_connections": handshakes,
        "phases": phases,
        "wrong": wrong,
    }


def markdown(figures: dict[str, Any]) -> str:
    """The report as text."""
    rows = [
        f"| {name} | {phase['seconds']} | {phase['answered']} | {phase['failed']} | {phase['server_cpu_s']} |"
        for name, phase in figures["phases"].items()
    ]
    lines = [
        f"# {figures['envoys']} real Envoys with mTLS",
        "",
        f"{_where(figures)}: {figures['rate']:g} requests a second,",
        f"**{figures['failed']} failed** of {figures['answered'] + figures['failed']:,}, none of them tried twice;",
        f"{figures['tls_connections']:,} TLS connections between Envoys.",
        "",
        "| while | seconds | answered | failed | CPU of the control plane, s |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        *(["", "Wrong:", "", *(f"- {each}" for each in figures["wrong"])] if figures["wrong"] else []),
    ]
    return "\n".join(lines) + "\n"


def _where(figures: dict[str, Any]) -> str:
    """When, on what and by which command; of a document that does not say so only the command."""
    about = figures.get("machine")
    if about is None:
        return f"By `make load-envoys N={figures['envoys']}`"
    load = f"load {about['load_before']:g} before and {about['load_after']:g} after"
    machine = f"{about['kernel']}, Python {about['python']}, {about['cores']} cores, {load}"
    return f"{figures['date']}, {machine}, revision {figures['revision']}, by `{figures['command']}`"


def _batches(items: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(items), AT_A_TIME):
        yield items[at : at + AT_A_TIME]


def _cpu(mesh: Mesh) -> tuple[int, float]:
    """The control plane's process id, and the seconds that it has used."""
    assert mesh.control_plane.process is not None
    pid = mesh.control_plane.process.child.pid
    return pid, process_cost.cpu_seconds(pid)


def _is_answered(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 200


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.real_envoys", description=__doc__)
    parser.add_argument("--envoys", type=count, default=50, help="a multiple of 5 [default: 50]")
    parser.add_argument("--rate", type=positive, default=200.0, help="requests a second [default: 200]")
    parser.add_argument("--edits", type=int, default=20, help="edits of policies [default: 20]")
    parser.add_argument("--no-restart", action="store_true", help="the control plane stays")
    parser.add_argument("--output", type=Path, help="the folder of the report [default: one of today's]")
    arguments = parser.parse_args()
    if arguments.envoys % ENVOYS_STEP:
        parser.error(f"--envoys must be a multiple of {ENVOYS_STEP}")
    before = document.machine()
    with ending.early(lambda: "no report was written"), tempfile.TemporaryDirectory() as directory:
        figures = play(
            Path(directory),
            envoys=arguments.envoys,
            rate=arguments.rate,
            edits=arguments.edits,
            is_restarted=not arguments.no_restart,
        )
    figures = {**document.origin(f"make load-envoys N={arguments.envoys}", before), **figures}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = arguments.output or ROOT / "loadtest" / "results" / f"{today}-envoys-{arguments.envoys}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(figures), encoding="utf-8")
    _say(markdown(figures))
    _say(str(folder / "report.md"))
    raise SystemExit(bool(figures["wrong"]))


if __name__ == "__main__":
    main()
