"""The attacks on streams of health discovery: what a peer may do there that probes nothing, or lies."""

from __future__ import annotations

import random
from collections.abc import Sequence

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2
from envoy.service.health.v3 import hds_pb2
from tests.attack.attacks import ATTACKS, attack, pour
from tests.attack.foe import Foe, Target, data
from tests.attack.request_attacks import ask_once

__all__ = ["ATTACKS"]

PATH = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"


def asking(node: str = "default.probed") -> bytes:
    """What an Envoy says first."""
    message = hds_pb2.HealthCheckRequestOrEndpointHealthResponse()
    message.health_check_request.node.id = node
    return bytes(message.SerializeToString())


def report(clusters: Sequence[str], *, is_well: bool = False) -> bytes:
    """What an Envoy says that has found all of these in one state."""
    message = hds_pb2.HealthCheckRequestOrEndpointHealthResponse()
    for cluster in clusters:
        found = message.endpoint_health_response.cluster_endpoints_health.add(cluster_name=cluster)
        found.locality_endpoints_health.add().endpoints_health.add(
            endpoint=endpoint_components_pb2.Endpoint(),
            health_status=health_check_pb2.HEALTHY if is_well else health_check_pb2.UNHEALTHY,
        )
    return bytes(message.SerializeToString())


@attack("health: another report each time, without end", "open", "not read any more")
def reports_without_end(target: Target) -> str:
    with Foe(target) as foe:
        foe.ask(PATH, asking())
        foe.wait_for("response")
        return pour(foe, lambda at: data(report(["localhost:80"], is_well=bool(at % 2))), batch=500)


@attack("health: long reports on clusters that nobody asked about", "open", "not read any more")
def long_reports(target: Target) -> str:
    many = [data(report([f"{at} {number}" for number in range(7_000)])) for at in range(2)]
    with Foe(target) as foe:
        foe.ask(PATH, asking())
        foe.wait_for("response")
        return pour(foe, lambda at: many[at % 2], batch=4, count=1_000)


@attack("health: a report of 1 MB", "status 8")
def huge_report(target: Target) -> str:
    with Foe(target) as foe:
        foe.ask(PATH, asking())
        foe.wait_for("response")
        foe.send(data(report([f"cluster {number}" for number in range(30_000)])))
        return foe.outcome(2.0)


@attack("health: a thousand streams of one node that read nothing", "open")
def many_streams(target: Target) -> str:
    with Foe(target) as foe:
        for stream in range(1, 2000, 2):
            foe.ask(PATH, asking(), stream)
        return foe.outcome(target.left_s)


@attack("health: nodes that are not there", "open")
def strangers(target: Target) -> str:
    with Foe(target) as foe:
        for stream in range(1, 1000, 2):
            foe.ask(PATH, asking(f"default.{stream}"), stream)
            foe.send(data(report(["localhost:80"]), stream))
        return foe.outcome(target.left_s)


@attack("health: garbage, no node, a report first", "status 3")
def nonsense(target: Target) -> str:
    for body in (random.Random(1).randbytes(10_000), b"", report(["a"]), asking()[:-1]):
        outcome = ask_once(target, PATH, body)
        if outcome != "status 3":
            return outcome
    return "status 3"
