"""Real Envoys in every mode, on one server: all warm, nothing refused, every change applied, whatever is refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass

import pytest
from tests.clients.envoy_contents import COUNT, TLS_LISTENER, EnvoyContents
from tests.clients.fleet import Fleet
from tests.clients.raw_envoy import ADS_MODES, SERVICES_MODES, Mode
from tests.clients.xds_server import wait_until

from kumafast.snapshot.resource import CLUSTER, ENDPOINT

pytestmark = pytest.mark.envoy

each_mode = pytest.mark.parametrize("mode", [*ADS_MODES, *SERVICES_MODES], ids=str)
# Envoy's own patience with what does not come is 15 s; what it waits for has to come long before.
SOON_S = 5.0
QUIET_S = 0.3


@dataclass(frozen=True)
class Before:
    """What one mode's Envoy and the server had counted when a test began."""

    trouble: dict[str, int]
    events: int


@pytest.fixture
def before(fleet: Fleet, mode: Mode) -> Before:
    """One mode as it is in the beginning, whatever another test made of it: any may come first, or twice."""
    old = fleet.contents[mode]
    fleet.contents[mode] = EnvoyContents(mode, old.authority, old.ports, old.backend)
    fleet.publish(mode)
    wait_until(lambda: fleet.is_settled(mode), f"{mode} has answered all that it was sent", timeout_s=SOON_S)
    wait_until(lambda: fleet.answers(mode, 0) == "one", "the first endpoint answers", timeout_s=SOON_S)
    wait_until(lambda: fleet.certificate_name(mode, TLS_LISTENER) == "server", "the certificate", timeout_s=SOON_S)
    return Before(fleet.trouble(mode), fleet.server.events_count())


def is_without_trouble(fleet: Fleet, mode: Mode, before: Before) -> bool:
    """Nothing was refused since, and nothing was waited for in vain."""
    assert fleet.trouble(mode) == before.trouble
    assert "rejected" not in {event[0] for event in fleet.server.events(str(mode), since=before.events)}
    return True


@each_mode
def test_all_is_warm_and_nothing_is_refused(fleet: Fleet, mode: Mode, before: Before) -> None:
    """Every mode of a real Envoy starts, holds all of the five types and routes by them (rules 1, 3, 43, 49)."""
    envoy = fleet.envoys[mode]
    assert len(fleet.expected(mode)) == COUNT == 29
    fleet.wait_for_exactly_the_contents(mode)
    assert not [entry for entry in envoy.dump().values() if "error_state" in entry]
    assert envoy.stat("cluster_manager.warming_clusters") == 0
    assert envoy.stat("listener_manager.total_listeners_warming") == 0
    # Listener 2 leads through TLS at both ends of listener 1.
    assert [fleet.answers(mode, listener) for listener in (0, 2, 3)] == ["one"] * 3
    assert "acknowledged" in {event[0] for event in fleet.server.events(str(mode))}
    assert not fleet.server.unanswered(str(mode))
    assert is_without_trouble(fleet, mode, before)


def test_node_comes_once_or_always_as_the_mode_says(fleet: Fleet) -> None:
    """The modes differ in what Envoy sends, or they would prove one thing twice (rules 2, 6)."""

    def sent_bytes(mode: Mode) -> float:
        return fleet.envoys[mode].stat("cluster.xds.upstream_cx_tx_bytes_total")

    for is_delta in (True, False):
        for is_mtls in (True, False):
            once, always = (Mode(is_delta, repeats, is_mtls) for repeats in (False, True))
            assert sent_bytes(always) > 3 * sent_bytes(once)


def test_client_without_a_certificate_is_not_served(fleet: Fleet) -> None:
    def first_bytes(*, has_certificate: bool) -> bytes:
        context = ssl.create_default_context(cafile=fleet.authority.ca)
        if has_certificate:
            context.load_cert_chain(fleet.authority.client.certificate, fleet.authority.client.key)
        address = ("127.0.0.1", fleet.server.mtls_port)
        # In TLS 1.3 a client learns that it is refused by its first read.
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(address, timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            return secured.recv(100)
        return b""

    assert first_bytes(has_certificate=True)
    assert not first_bytes(has_certificate=False)


@each_mode
def test_changed_endpoints_are_sent_alone(fleet: Fleet, mode: Mode, before: Before) -> None:
    """One assignment that changes is one response with one resource in either variant (rules 36, 37, 41)."""
    applied = fleet.applied(mode)
    fleet.contents[mode].backends["c0"] = fleet.two.port
    fleet.publish(mode)
    wait_until(lambda: fleet.answers(mode, 0) == "two", "the new endpoint answers", timeout_s=SOON_S)
    time.sleep(QUIET_S)
    moved = {name for name, value in fleet.applied(mode).items() if value != applied.get(name, 0)}
    assert moved == {"cluster.c0.update_success", "cluster.c0.membership_change"}
    sent = [event for event in fleet.server.events(str(mode), since=before.events) if event[0] == "sent"]
    assert len(sent) == 1
    assert sent[0][1] == ENDPOINT
    assert sent[0][3] < 400, "an assignment has about 220 bytes with all that stands around it"
    assert fleet.answers(mode, 3) == "one"
    assert is_without_trouble(fleet, mode, before)


@each_mode
def test_cluster_sent_anew_is_warm_at_once(fleet: Fleet, mode: Mode, before: Before) -> None:
    """A changed cluster becomes active although its endpoints have not changed (rule 50)."""
    envoy = fleet.envoys[mode]
    for name in ("c3", "tls"):
        fleet.contents[mode].connect_timeouts[name] = "2s"
    fleet.publish(mode)

    def are_active() -> bool:
        dump = envoy.dump()
        return all(dump[f"cds/{name}"]["cluster"]["connect_timeout"] == "2s" for name in ("c3", "tls"))

    wait_until(are_active, "the changed clusters are active", timeout_s=SOON_S)
    assert envoy.stat("cluster_manager.warming_clusters") == 0
    sent = [event[1] for event in fleet.server.events(str(mode), since=before.events) if event[0] == "sent"]
    # On streams of their own the clusters ask each for itself.
    assert sent == ([CLUSTER, ENDPOINT] if mode.is_aggregated else [CLUSTER, ENDPOINT, ENDPOINT])
    assert envoy.stat("cluster.c3.membership_total") == 1
    # The cluster with secrets has them without being sent these anew.
    assert [fleet.answers(mode, listener) for listener in (2, 3)] == ["one"] * 2
    assert is_without_trouble(fleet, mode, before)


@each_mode
def test_changed_listeners_routes_and_secrets_are_applied_at_once(fleet: Fleet, mode: Mode, before: Before) -> None:
    """A changed listener has its routes and secrets without being sent these anew (rules 49, 50)."""
    envoy, contents = fleet.envoys[mode], fleet.contents[mode]
    contents.prefixes[3] = "/rewritten/"
    fleet.publish(mode)
    wait_until(lambda: fleet.get(mode, 3, "/x").json()["path"] == "/rewritten/x", "the route", timeout_s=SOON_S)
    contents.listener_stats = {0: "anew0", TLS_LISTENER: "anew1"}
    fleet.publish(mode)

    def are_active() -> bool:
        dump = envoy.admin("/config_dump?resource=dynamic_listeners")
        are_there = all(f'"stat_prefix": "anew{number}"' in dump for number in (0, TLS_LISTENER))
        return are_there and envoy.stat("listener_manager.total_listeners_warming") == 0

    wait_until(are_active, "the changed listeners are active", timeout_s=SOON_S)
    assert fleet.certificate_name(mode, TLS_LISTENER) == "server"
    contents.server_pair = fleet.authority.issue("rotated")
    fleet.publish(mode)
    wait_until(lambda: fleet.certificate_name(mode, TLS_LISTENER) == "rotated", "the new certificate", timeout_s=SOON_S)
    assert [fleet.answers(mode, listener) for listener in (0, 2, 3)] == ["one"] * 3
    fleet.wait_for_exactly_the_contents(mode)
    assert is_without_trouble(fleet, mode, before)


@each_mode
def test_what_goes_is_gone_and_may_come_back(fleet: Fleet, mode: Mode, before: Before) -> None:
    """Removal in both variants, without a rejection or a gap for what stays (rules 35, 38, 49)."""
    contents = fleet.contents[mode]
    for removed in ({"lds/l3", "rds/r3", "cds/c3", "eds/c3", "cds/c7", "eds/c7"}, set()):
        contents.removed = removed
        fleet.publish(mode)
        fleet.wait_for_exactly_the_contents(mode)
        assert (fleet.answers(mode, 3) == "one") == (not removed)
        assert fleet.answers(mode, 2) == "one"
    assert is_without_trouble(fleet, mode, before)


@each_mode
def test_refused_cluster_is_not_sent_again_and_stops_nothing(fleet: Fleet, mode: Mode, before: Before) -> None:
    """A NACK of Envoy's: silence about it, everything else flows, and it recovers (rules 10, 11, 12, 16, 17)."""
    envoy, contents = fleet.envoys[mode], fleet.contents[mode]
    # Envoy validates it, and refuses what is not more than nothing.
    contents.connect_timeouts["c5"] = "-1s"
    fleet.publish(mode)
    rejected = "cluster_manager.cds.update_rejected"
    refused = before.trouble.get(rejected, 0) + 1
    wait_until(lambda: envoy.stat(rejected) == refused, "Envoy refuses the cluster", timeout_s=SOON_S)
    # The patience with what is held back ends meanwhile, which must not free what was refused.
    time.sleep(QUIET_S)
    assert envoy.stat(rejected) == refused
    events = fleet.server.events(str(mode), since=before.events)
    assert [event[0] for event in events if event[1:2] == [CLUSTER]] == ["sent", "rejected"]
    (refusal,) = (event for event in events if event[0] == "rejected")
    assert "duration" in refusal[3]
    # Other types flow: endpoints, routes and listeners.
    contents.backends["c0"] = fleet.two.port
    contents.prefixes[3] = "/meanwhile/"
    contents.listener_stats = {0: "meanwhile0"}
    fleet.publish(mode)
    wait_until(lambda: fleet.answers(mode, 0) == "two", "endpoints flow", timeout_s=SOON_S)
    wait_until(lambda: fleet.get(mode, 3, "/x").json()["path"] == "/meanwhile/x", "routes flow", timeout_s=SOON_S)
    dump = "/config_dump?resource=dynamic_listeners"
    wait_until(lambda: '"stat_prefix": "meanwhile0"' in envoy.admin(dump), "listeners flow", timeout_s=SOON_S)
    # It recovers with the next version.
    contents.connect_timeouts["c5"] = "3s"
    fleet.publish(mode)
    wait_until(
        lambda: envoy.dump()["cds/c5"]["cluster"]["connect_timeout"] == "3s", "the mended cluster", timeout_s=SOON_S
    )
    fleet.wait_for_exactly_the_contents(mode)
    assert fleet.trouble(mode) == {**before.trouble, rejected: refused}
