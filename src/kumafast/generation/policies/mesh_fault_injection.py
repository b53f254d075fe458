"""What MeshFaultInjection changes: some requests that come in go wrong.

In: a merged conf, and what holds for some clients in its place. Out: effects. Never: a fault for whoever does not say,
or show, that it is one of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.message import Message

from kumafast.generation import cases, http_filters, protocols, senders
from kumafast.generation.cases import Case
from kumafast.generation.effects import Effect
from kumafast.generation.faults import FILTER, Fault
from kumafast.resources.conf_rules import decimal
from kumafast.resources.durations import as_timedelta, nanoseconds
from kumafast.resources.policies import mesh_fault_injection
from kumafast.resources.policies.fault_injection import kilobits
from kumafast.resources.policies.mesh_fault_injection import Conf, MeshFaultInjection

KIND = MeshFaultInjection.type.name


@dataclass(frozen=True, slots=True)
class Faulty(Effect):
    """Faults: those of the first case that a client is, else those of all."""

    general: tuple[Fault, ...] = ()
    told: tuple[tuple[Case, tuple[Fault, ...]], ...] = ()

    @property
    def reads_server_name(self) -> bool:
        """Whether a case asks for it."""
        return any(case.reads_server_name for case, _ in self.told)

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Have requests go wrong on their routes; each fault of a list has a filter."""
        for name in _names(max(map(len, (self.general, *(faults for _, faults in self.told))))):
            http_filters.add_before_router(manager, name, Fault().config())
        told = [(case, _configs(faults)) for case, faults in self.told]
        for host in manager.route_config.virtual_hosts:
            routes = [each for route in host.routes for each in (*cases.routes_of(route, told), route)]
            for route in routes[len(told) :: len(told) + 1]:
                for name, config in _configs(self.general).items():
                    route.typed_per_filter_config[name].Pack(config, deterministic=True)
            del host.routes[:]
            host.routes.extend(routes)

    def on_gateway_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """The same for what a gateway takes in."""
        self.on_inbound_http(manager)


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound of a client that is told apart by its tags."""
    return senders.NamesSender() if protocols.is_http(protocol) else None


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    if not protocols.is_http(protocol):
        return None
    told = [(cases.case(item), _faults(item["default"])) for item in conf.get("cases", ())]
    faulty = Faulty(_faults(conf) or (), tuple((case, faults) for case, faults in told if faults is not None))
    return faulty if faulty.general or any(faults for _, faults in faulty.told) else None


def gateway(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener and the routes of a gateway."""
    return inbound(conf, protocol)


def _names(count: int) -> list[str]:
    return [FILTER, *(f"{FILTER}.{number}" for number in range(1, count))][:count]


def _configs(faults: tuple[Fault, ...]) -> Mapping[str, Message]:
    return {name: fault.config() for name, fault in zip(_names(len(faults)), faults, strict=True)}


def _faults(conf: Mapping[str, Any]) -> tuple[Fault, ...] | None:
    """What goes wrong; None where nothing is said about it, so that what is said more broadly holds."""
    written = Conf.model_validate(conf).http
    if written is None:
        return None
    found = map(_fault, written)
    return tuple(fault for fault in found if fault != Fault())


def _fault(written: mesh_fault_injection.Fault) -> Fault:
    delay, abort, bandwidth = written.delay, written.abort, written.response_bandwidth
    limit = None if bandwidth is None else kilobits(bandwidth.limit)
    has_delay = delay is not None and delay.value is not None and nanoseconds(delay.value) > 0
    return Fault(
        delay=(_share(delay.percentage), as_timedelta(delay.value)) if has_delay and delay and delay.value else None,
        abort=None if abort is None else (_share(abort.percentage), abort.http_status),
        kilobits=None if bandwidth is None or limit is None else (_share(bandwidth.percentage), limit),
    )


def _share(percentage: int | str) -> float:
    return float(decimal(percentage) or 0)
