"""An Envoy that shows a certificate to the control plane is served; one without, or with another's, is not."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests._core.test_wire_tls import Files, create_files
from tests.envoy.harness import ControlPlane, Process, free_port, wait_until

pytestmark = pytest.mark.envoy


class NamedEnvoy:
    """An Envoy with a bootstrap of the control plane's, to which a client's certificate may be added."""

    def __init__(
        self, directory: Path, envoy: str, bootstrap: dict[str, Any], *, shown: Files | None, api_type: str
    ) -> None:
        self.port = free_port()
        bootstrap = json.loads(json.dumps(bootstrap))
        bootstrap["admin"] = {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": self.port}}}
        bootstrap["dynamicResources"]["adsConfig"]["apiType"] = api_type
        named = 0
        for cluster in bootstrap["staticResources"]["clusters"]:
            context = cluster.get("transportSocket", {}).get("typedConfig")
            if context is not None and shown is not None:
                pair = {"certificateChain": {"filename": str(shown.certificate)}}
                pair["privateKey"] = {"filename": str(shown.key)}
                context.setdefault("commonTlsContext", {})["tlsCertificates"] = [pair]
                named += 1
        assert named == (shown is not None)
        path = directory / f"envoy-{self.port}.yaml"
        path.write_text(yaml.safe_dump(bootstrap))
        command = [envoy, "--config-path", str(path), "--disable-hot-restart", "--log-level", "warning"]
        self.process = Process(command, directory / f"envoy-{self.port}.log")

    def admin(self, path: str) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False).text

    def stats(self, pattern: str) -> dict[str, int]:
        pairs = (line.rpartition(": ") for line in self.admin(f"/stats?filter={pattern}").splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def listeners(self) -> list[str]:
        return [line.partition("::")[0] for line in self.admin("/listeners").splitlines()]


@pytest.fixture
def clients(tmp_path: Path) -> Files:
    return create_files(tmp_path, "clients")


@pytest.fixture
def control_plane(tmp_path: Path, clients: Files) -> Iterator[ControlPlane]:
    control_plane = ControlPlane(tmp_path, "--dp-client-ca", str(clients.certificate)).start()
    inbound = {"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": "echo"}}
    networking = {"address": "127.0.0.1", "inbound": [inbound]}
    control_plane.put({"type": "Dataplane", "mesh": "default", "name": "echo-1", "networking": networking})
    yield control_plane
    control_plane.stop()


def fetch_bootstrap(control_plane: ControlPlane, shown: Files) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=str(control_plane.ca_file))
    trust.load_cert_chain(shown.certificate, shown.key)
    with httpx.Client(http1=False, http2=True, verify=trust, trust_env=False) as client:
        answer = client.post(
            control_plane.dp.replace("grpcs", "https") + "/bootstrap", json={"mesh": "default", "name": "echo-1"}
        )
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    document: dict[str, Any] = yaml.safe_load(answer.text)
    return document


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
def test_envoy_with_a_certificate_is_served(
    api_type: str, tmp_path: Path, envoy_binary: str, control_plane: ControlPlane, clients: Files
) -> None:
    bootstrap = fetch_bootstrap(control_plane, clients)
    envoy = NamedEnvoy(tmp_path, envoy_binary, bootstrap, shown=clients, api_type=api_type)
    with contextlib.ExitStack() as ending:
        ending.callback(envoy.process.stop)
        wait_until(lambda: envoy.admin("/ready").strip() == "LIVE", f"Envoy is live; see {envoy.process.log}")
        wait_until(lambda: any("inbound" in name for name in envoy.listeners()), "it has its inbound")
        assert not any(envoy.stats("update_rejected").values())
        assert control_plane.metrics()["kumafast_connected_proxies"] == 1
        # New certificates of both sides' choosing do not touch a connection that there is.
        assert control_plane.process is not None
        control_plane.process.child.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded the certificate" in control_plane.process.log.read_text(), "it has reloaded")  # type: ignore[union-attr]
        assert envoy.stats("control_plane.connected_state") == {"control_plane.connected_state": 1}


@pytest.mark.parametrize("shows", ["nothing", "another authority's"])
def test_envoy_without_the_right_certificate_is_not(
    shows: str, tmp_path: Path, envoy_binary: str, control_plane: ControlPlane, clients: Files
) -> None:
    bootstrap = fetch_bootstrap(control_plane, clients)
    shown = None if shows == "nothing" else create_files(tmp_path, "others")
    envoy = NamedEnvoy(tmp_path, envoy_binary, bootstrap, shown=shown, api_type="DELTA_GRPC")
    with contextlib.ExitStack() as ending:
        ending.callback(envoy.process.stop)
        failed = r"cluster\..*ads.*\.ssl\.(connection_error|handshake)|cluster\..*ads.*\.upstream_cx_destroy"
        wait_until(lambda: any(envoy.stats(failed).values()), f"it has been refused; see {envoy.process.log}")
        assert envoy.stats("control_plane.connected_state").get("control_plane.connected_state", 0) == 0
        assert not any("inbound" in name for name in envoy.listeners())
        assert control_plane.metrics().get("kumafast_connected_proxies", 0) == 0
