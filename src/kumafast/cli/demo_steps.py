"""What the demo does and how it proves each thing.

In: a `Stage`: processes, ports, an API. Out: a sentence for each thing proved. Never: a claim that was not measured.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from kumafast.cli import demo_load, inspection
from kumafast.cli.demo_process import Process, Processes, environment, free_ports
from kumafast.cli.failure import CommandError
from kumafast.cli.workdir import ADMIN_SOCKET

_START_S = 30.0
_CONVERGE_S = 20.0
_WATCH_S = 1.0
_PROOF_REQUESTS = 20
_READY = re.compile(r"^ready api=(\S+) dp=(\S+) diagnostics=(\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Sidecar:
    """A dataplane of the demo with its Envoy, and its workload if it has one."""

    name: str
    port: int
    """Where other sidecars connect to; of a client's, its own application."""
    service_port: int
    envoy: Process
    socket: Path
    workload: Process | None


@dataclass(slots=True)
class Stage:
    """Where the demo plays."""

    directory: Path
    envoy: Path
    processes: Processes
    api: str = ""
    dp: str = ""
    sidecars: dict[str, Sidecar] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the client's application sends its requests: to its own sidecar."""
        return self.url_of("client")

    def url_of(self, name: str) -> str:
        """A sidecar's port: of a client's, where its application sends requests; of a service's, where others do."""
        return f"http://127.0.0.1:{self.sidecars[name].port}/"


def start_control_plane(stage: Stage) -> str:
    """Start a control plane of our own on free ports."""
    store = f"sqlite:{stage.directory / 'kumafast.db'}"
    command = ["run", "--store", store, "--data-dir", str(stage.directory)]
    command += ["--api-port", "0", "--dp-port", "0", "--diagnostics-port", "0"]
    process = stage.processes.start("control-plane", _kumafast(*command))
    ready = stage.processes.await_value(
        "the control plane's ready line", lambda: _READY.search(process.output.read_text()), timeout_s=_START_S
    )
    stage.api, stage.dp = ready[1], ready[2]
    if httpx.get(f"{ready[3]}/ready").status_code != 200:
        raise CommandError("the control plane says that it serves, but its /ready does not", process.log_tail())
    return f"the control plane serves: API {stage.api}, Envoys {stage.dp}"


def add_echo(stage: Stage, name: str) -> str:
    """Start an instance of the echo service with its own Envoy."""
    port, service_port = free_ports(2)
    workload = stage.processes.start(name, [sys.executable, "-m", "kumafast.cli.demo_echo", name, str(service_port)])
    tags = {"kuma.io/service": "echo", "kuma.io/protocol": "http", "instance": name}
    inbound = {"port": port, "servicePort": service_port, "tags": tags}
    sidecar = _start_sidecar(
        stage, name, {"inbound": [inbound]}, port=port, service_port=service_port, workload=workload
    )
    _await_online(stage, sidecar)
    return f"{name} is Online: the workload and an Envoy of its own (pid {sidecar.envoy.popen.pid})"


def add_client(stage: Stage, name: str = "client") -> str:
    """Start a client's Envoy, with an outbound to the echo service."""
    port, service_port, outbound_port = free_ports(3)
    networking = {
        "inbound": [{"port": port, "servicePort": service_port, "tags": {"kuma.io/service": name}}],
        "outbound": [{"port": outbound_port, "tags": {"kuma.io/service": "echo"}}],
    }
    sidecar = _start_sidecar(stage, name, networking, port=outbound_port, service_port=service_port, workload=None)
    _await_online(stage, sidecar)
    return f"{name} is Online: its Envoy (pid {sidecar.envoy.popen.pid}) takes requests to echo at {stage.url_of(name)}"


def prove_both_sidecars(stage: Stage) -> str:
    """Send requests and read from both Envoys' own counters that each of them carried every one."""
    client, echo = stage.sidecars["client"], stage.sidecars["echo-1"]
    with httpx.Client(timeout=5.0) as http:
        stage.processes.await_value(
            "a first answer", lambda: demo_load.ask(http, stage.url).instance, timeout_s=_CONVERGE_S
        )
        clusters = {client.name: "echo", echo.name: f"localhost_{echo.service_port}"}
        before = {name: _answered(stage.sidecars[name], cluster) for name, cluster in clusters.items()}
        outcomes = [demo_load.ask(http, stage.url) for _ in range(_PROOF_REQUESTS)]
    carried = {name: _answered(stage.sidecars[name], cluster) - before[name] for name, cluster in clusters.items()}
    if any(outcome.instance != echo.name for outcome in outcomes):
        raise CommandError("a request was not answered by echo-1:", [outcome.problem for outcome in outcomes])
    if set(carried.values()) != {_PROOF_REQUESTS}:
        raise CommandError(f"{_PROOF_REQUESTS} requests were answered, but the Envoys counted otherwise: {carried}")
    return f"{_PROOF_REQUESTS} requests answered by echo-1; the counters of both Envoys went up by {_PROOF_REQUESTS}"


def see_both(stage: Stage, load: demo_load.Load) -> str:
    """Wait until both instances answer."""
    began = time.monotonic()
    stage.processes.await_value(
        "traffic to both instances", lambda: True if len(load.instances(began)) == 2 else None, timeout_s=_CONVERGE_S
    )
    settled = time.monotonic()
    time.sleep(_WATCH_S)
    shares = ", ".join(f"{count} by {name}" for name, count in sorted(load.instances(settled).items()))
    _none_lost(load, settled)
    return f"both instances answer: {shares} within {_WATCH_S:g} s, none lost"


def remove_first(stage: Stage, load: demo_load.Load) -> str:
    """Delete echo-1 while requests run, and look what happens after the Envoys have acknowledged."""
    said = run_kumafast("--api", stage.api, "delete", "dataplane", "echo-1", "--wait").splitlines()
    acknowledged = time.monotonic()
    time.sleep(_WATCH_S)
    still = load.instances(acknowledged)["echo-1"]
    if still:
        raise CommandError(f"echo-1 answered {still} requests that began after its removal was acknowledged")
    _none_lost(load, acknowledged)
    count = len(load.since(acknowledged))
    return f"echo-1 removed, {said[-1]}; {count} requests since then, none lost, none to echo-1"


def stop_first(stage: Stage, load: demo_load.Load) -> str:
    """Stop the Envoy and the workload of the removed instance."""
    began = time.monotonic()
    sidecar = stage.sidecars.pop("echo-1")
    stage.processes.stop(sidecar.envoy)
    if sidecar.workload is not None:
        stage.processes.stop(sidecar.workload)
    time.sleep(_WATCH_S)
    _none_lost(load, began)
    return f"its Envoy and workload stopped; {len(load.since(began))} requests since then, none lost"


def check_overview(stage: Stage) -> str:
    """Check each dataplane's status: Online, with updates and without errors."""

    def settled() -> list[dict[str, Any]] | None:
        items = _overviews(stage)
        has_all = {item["name"] for item in items} == set(stage.sidecars)
        return items if has_all and all(inspection.total_of(item, "responsesSent") for item in items) else None

    items = stage.processes.await_value("the status of each dataplane", settled, timeout_s=_CONVERGE_S)
    for item in items:
        errors = inspection.total_of(item, "responsesRejected")
        if inspection.status_of(item) != "Online" or errors:
            raise CommandError(f"{item['name']} is {inspection.status_of(item)} with {errors} errors")
    return f"{len(items)} dataplanes Online, each with updates and without errors"


def run_kumafast(*arguments: str) -> str:
    """What a command of kumafast prints; `CommandError` where it fails."""
    result = subprocess.run(
        _kumafast(*arguments), capture_output=True, text=True, check=False, env=environment(), timeout=60
    )
    if result.returncode != 0:
        raise CommandError(f"kumafast {' '.join(arguments)} failed:", result.stderr.splitlines())
    return result.stdout.strip()


def _kumafast(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kumafast", *arguments]


def _start_sidecar(
    stage: Stage, name: str, networking: Mapping[str, Any], *, port: int, service_port: int, workload: Process | None
) -> Sidecar:
    document = {
        "type": "Dataplane",
        "mesh": "default",
        "name": name,
        "networking": {"address": "127.0.0.1", **networking},
    }
    file, workdir = stage.directory / f"{name}.yaml", stage.directory / name
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    command = ["dataplane", "run", "--cp-address", stage.dp, "--dataplane-file", str(file)]
    command += ["--envoy", str(stage.envoy), "--workdir", str(workdir)]
    command += ["--concurrency", "1", "--log-level", "warning"]
    if stage.dp.startswith("grpcs"):
        command += ["--ca-cert-file", str(stage.directory / "dp-server.crt")]
    envoy = stage.processes.start(f"{name}-envoy", _kumafast(*command))
    sidecar = Sidecar(name, port, service_port, envoy, workdir / ADMIN_SOCKET, workload)
    stage.sidecars[name] = sidecar
    return sidecar


def _await_online(stage: Stage, sidecar: Sidecar) -> None:
    def online() -> bool | None:
        mine = [item for item in _overviews(stage) if item["name"] == sidecar.name]
        return True if mine and inspection.status_of(mine[0]) == "Online" and _is_live(sidecar) else None

    stage.processes.await_value(f"{sidecar.name} going Online", online, timeout_s=_START_S)


def _overviews(stage: Stage) -> list[dict[str, Any]]:
    page = httpx.get(f"{stage.api}/meshes/default/dataplanes/_overview").json()
    return list(page["items"])


def _is_live(sidecar: Sidecar) -> bool:
    # Connected is not yet configured: an Envoy is live when it has its clusters and listeners and serves.
    try:
        return _admin(sidecar, "/ready").text.strip() == "LIVE"
    except httpx.HTTPError:
        return False


def _answered(sidecar: Sidecar, cluster: str) -> int:
    """How many requests an Envoy says a cluster has answered with success."""
    counter = f"cluster.{cluster}.upstream_rq_200"
    lines = _admin(sidecar, f"/stats?filter=^{re.escape(counter)}$").text.splitlines()
    return sum(int(line.rpartition(":")[2]) for line in lines if line.startswith(f"{counter}:"))


def _admin(sidecar: Sidecar, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(sidecar.socket)), timeout=5.0) as http:
        return http.get(f"http://envoy{path}")


def _none_lost(load: demo_load.Load, moment: float) -> None:
    lost = load.lost(moment)
    if lost:
        problems = sorted({outcome.problem for outcome in lost})
        raise CommandError(f"{len(lost)} of {len(load.since(moment))} requests were lost:", problems[:10])
