"""A real Envoy's stream ends between a changed cluster and its endpoints: it does not wait for what it holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients.authority import Authority
from tests.clients.cutting_relay import CuttingRelay
from tests.clients.envoy_contents import LISTENERS, EnvoyContents
from tests.clients.raw_envoy import Mode, RawEnvoy
from tests.clients.xds_server import ServerProcess, wait_until
from tests.ports import free_ports

pytestmark = pytest.mark.envoy

# Envoy's own patience is 15 s.
SOON_S = 8.0
CHANGED = ("c3", "tls")


@pytest.mark.parametrize("messages", [1, 2], ids=["endpoints-lost", "acknowledgement-lost"])
@pytest.mark.parametrize("is_delta", [True, False], ids=["delta", "sotw"])
def test_cluster_is_warm_soon_after_a_cut_in_the_middle(
    envoy_binary: str, tmp_path: Path, messages: int, is_delta: bool
) -> None:
    """Envoy comes back with the new cluster and the old endpoints, and is sent these once more (rules 46, 50)."""
    mode = Mode(is_delta=is_delta, repeats_node=False, is_mtls=False)
    with ExitStack() as ending:
        authority = Authority(tmp_path)
        server = ServerProcess(authority, tmp_path / "server.log")
        ending.callback(server.close)
        *ports, admin_port, backend = free_ports(LISTENERS + 2)
        contents = EnvoyContents(mode, authority, ports, backend)
        server.set(str(mode), contents.messages())
        server.start()
        relay = CuttingRelay(server.plain_port)
        ending.callback(relay.close)
        envoy = RawEnvoy(envoy_binary, mode, server, authority, tmp_path, admin_port=admin_port, xds_port=relay.port)
        ending.callback(envoy.stop)
        envoy.wait_ready()
        contents.connect_timeouts = dict.fromkeys(CHANGED, "2s")
        relay.cut_after(messages)
        server.set(str(mode), contents.messages())
        wait_until(lambda: relay.cuts == 1, "the stream is cut", timeout_s=SOON_S)

        def are_active() -> bool:
            dump = envoy.dump()
            active = [dump.get(f"cds/{name}", {}).get("cluster", {}).get("connect_timeout") for name in CHANGED]
            return active == ["2s"] * len(CHANGED)

        wait_until(are_active, "the changed clusters are active", timeout_s=SOON_S)
        assert envoy.stat("cluster_manager.warming_clusters") == 0
        for name in CHANGED:
            assert envoy.stat(f"cluster.{name}.init_fetch_timeout") == 0
            assert envoy.stat(f"cluster.{name}.membership_total") == 1
        if is_delta:
            wait_until(lambda: not server.unanswered(str(mode)), "all is answered", timeout_s=SOON_S)
            # What was on its way comes again, and nothing else of what is held.
            sent = {event[1].rpartition(".")[2] for event in server.events(str(mode), stream=1) if event[0] == "sent"}
            assert sent <= {"ClusterLoadAssignment"}
