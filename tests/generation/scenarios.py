"""Golden scenarios: parts of a proxy as YAML, and the Envoy resources that they become.

In: `golden/<scenario>/input.yaml`, a list of one-key mappings from the kind of part to its fields; those of a policy
are in a folder of its name. A `port` is an outbound with what routes say of it, by their kind, and the protocols of the
clusters that it leads to. Under `policies` a part has what its policies say, by their kind, and under `sender` what
its dataplane says of itself, where one asks. A `gateway` is a built-in one, with listeners, routes, policies for it,
secrets by their names and the protocols of what it leads to. `proxy` is no part but what the policies of a whole proxy
add to it, where it runs as its `host` says, and change in all that the others become.
Out: parts, messages, documents by file. Never: an expectation of its own; what is expected stands in the golden files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message

from kumafast import outbound_ports
from kumafast.addresses import Addresses
from kumafast.gateway_ports import GatewayPorts, gateway_ports
from kumafast.generation import modifications, names
from kumafast.generation.effects import Effect, Source
from kumafast.generation.generate import generate
from kumafast.generation.host import Host
from kumafast.generation.policy_effects import effects, host_parts, proxy_parts, template
from kumafast.generation.proxy import (
    AdminInterface,
    Collector,
    CollectorSocket,
    Destination,
    DnsTable,
    Endpoint,
    EndpointSet,
    ExternalEndpoint,
    ExternalTls,
    Inbound,
    InboundTls,
    LauncherConfig,
    LauncherMetrics,
    Leg,
    MetricsPort,
    Outbound,
    OutboundRoute,
    OutboundTls,
    Part,
    RequestRule,
    Tags,
    TransparentProxy,
    TrustBundle,
    VerifiedName,
)
from kumafast.layers import Layers
from kumafast.matching import BackendPort, Setting, routing
from kumafast.matching.merge import merge
from kumafast.reached import Destinations
from kumafast.registry import DataplaneId, Registry
from kumafast.resources import Resource, Secret, parse, secret_data, validate
from kumafast.resources.fields import freeze
from kumafast.resources.tags import SERVICE_TAG
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME, SECRET, TypeUrl
from kumafast.store import Change, StoredResource

GOLDEN = Path(__file__).parent / "golden"
SCENARIOS = tuple(sorted(path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("input.yaml")))

FILES = {
    CLUSTER: "clusters.yaml",
    ENDPOINT: "endpoints.yaml",
    LISTENER: "listeners.yaml",
    ROUTE: "routes.yaml",
    SECRET: "secrets.yaml",
    RUNTIME: "runtime.yaml",
}

_PARTS: dict[str, type[Part]] = {
    "admin_interface": AdminInterface,
    "transparent_proxy": TransparentProxy,
    "dns_table": DnsTable,
    "inbound": Inbound,
    "outbound": Outbound,
    "destination": Destination,
    "endpoint_set": EndpointSet,
    "trust_bundle": TrustBundle,
    "collector": Collector,
}
_PEM = ("authority", "chain", "key")


def parts(scenario: str) -> tuple[Part, ...]:
    """The parts that a scenario is about."""
    return tuple(each for item in _document(scenario) for kind, fields in item.items() for each in _parts(kind, fields))


def _document(scenario: str) -> Sequence[Mapping[str, Any]]:
    document: Sequence[Mapping[str, Any]] = yaml.safe_load((GOLDEN / scenario / "input.yaml").read_text("utf-8"))
    return document


def _parts(kind: str, fields: Mapping[str, Any]) -> tuple[Part, ...]:
    if kind == "port":
        return (_port(**fields),)
    if kind == "gateway":
        return tuple(_gateway(**fields))
    return _of_whole_proxy(**fields) if kind == "proxy" else (part(kind, fields),)


def _of_whole_proxy(
    policies: Mapping[str, Mapping[str, Any]], host: Mapping[str, Any] | None = None
) -> tuple[Part, ...]:
    said = _settings(policies)
    return (*proxy_parts(said), *host_parts(said, lambda: None if host is None else _host(**host)))


def _host(labels: Mapping[str, str], metrics_certificate: Sequence[str] = (), **fields: Any) -> Host:
    certificate = tuple(metrics_certificate)
    return Host(labels=tags(labels), metrics_certificate=certificate if len(certificate) == 2 else None, **fields)


def _port(
    tags: Mapping[str, str],
    routes: Mapping[str, Mapping[str, Any]],
    protocol: str = "http",
    protocols: Mapping[str, str] | None = None,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outbound:
    """An outbound as routes lead it: confs as `to` of a policy has them, the weightiest last."""
    own = tuple(sorted(tags.items()))
    found = routing.route(own, {kind: merge(_as_list(conf)) for kind, conf in routes.items()})
    led = tuple(_led(each, protocol, protocols or {}) for each in ((own,) if found is None else found.destinations))
    port = ("127.0.0.1", 10_000, own, "own", found, (tags[SERVICE_TAG], ""), led)
    outbound = outbound_ports.listener(port, binds=True, reuses_port=True)
    return replace(outbound, effects=policy_effects(policies or {}, "outbound", outbound.protocol))


def _gateway(
    listeners: Sequence[Mapping[str, Any]],
    routes: Sequence[Mapping[str, Any]] = (),
    policies: Sequence[Mapping[str, Any]] = (),
    secrets: Mapping[str, str] | None = None,
    protocols: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Part]:
    """The clusters and ports of the gateway `edge`, for whose service routes and policies are written."""
    service = {"kuma.io/service": "edge"}
    dataplane = {"address": "192.168.0.1", "gateway": {"type": "BUILTIN", "tags": service}}
    documents: list[dict[str, Any]] = [
        {"type": "Dataplane", "name": "edge-1", "networking": dataplane},
        {
            "type": "MeshGateway",
            "name": "edge",
            "selectors": [{"match": service}],
            "tags": tags or {},
            "conf": {"listeners": listeners},
        },
        *({"name": f"route-{number}", **route} for number, route in enumerate(routes)),
        *({"name": f"policy-{number}", **policy} for number, policy in enumerate(policies)),
    ]
    resources = [parse({"mesh": "default", **document}) for document in documents]
    assert [violation for each in resources for violation in validate(each)] == []
    registry = Registry()
    _apply(registry, resources)
    _apply(registry, (_secret(name, content) for name, content in (secrets or {}).items()))
    state = registry.state("default")
    gateway = None if state is None else state.gateways.get("edge-1")
    assert gateway is not None
    by_tags = [dict(key) for key in gateway.destinations if not isinstance(key, BackendPort)]
    _apply(registry, (_provider(number, each, protocols or {}) for number, each in enumerate(by_tags)))
    edge, layers = DataplaneId("default", "edge-1"), Layers(lambda *_: None)
    reached = Destinations(registry=registry, addresses=Addresses(in_use=list, changed=lambda _: None))
    ports = gateway_ports(registry, reached, layers, edge, "192.168.0.1")
    assert isinstance(ports, GatewayPorts)
    yield from (each.destination for each in ports.clusters.values())
    yield from ports.parts(registry.bindings(edge), Source("default", "edge", "192.168.0.1"), lambda: "")


def _apply(registry: Registry, resources: Iterable[Resource]) -> None:
    now = datetime(2027, 1, 1, tzinfo=UTC)
    registry.apply([Change(each.key, StoredResource(each, 1, now, now)) for each in resources])


def _secret(name: str, content: str) -> Resource:
    return Secret(mesh="default", name=name, data=secret_data(content.encode()))


def _provider(number: int, tags: Mapping[str, str], protocols: Mapping[str, str]) -> Resource:
    """A dataplane with these tags, which speaks HTTP unless its service is said to speak otherwise."""
    protocol = protocols.get(tags[SERVICE_TAG], "http")
    inbound = {"port": 80, "tags": {**tags, "kuma.io/protocol": protocol}}
    networking = {"address": "192.168.0.2", "inbound": [inbound]}
    return parse({"type": "Dataplane", "mesh": "default", "name": f"dp-{number}", "networking": networking})


def _as_list(conf: Any) -> list[Any]:
    frozen: Any = freeze(conf)
    return list(frozen) if isinstance(conf, list) else [frozen]


def _led(tags: Tags | BackendPort, protocol: str, protocols: Mapping[str, str]) -> Destination:
    assert not isinstance(tags, BackendPort)
    cluster = names.cluster_name(dict(tags))
    return Destination(cluster, dict(tags)[SERVICE_TAG], protocols.get(dict(tags)[SERVICE_TAG], protocol))


def part(kind: str, fields: Mapping[str, Any]) -> Part:
    """One part from its fields, tags given as mappings."""
    values = dict(fields)
    if "endpoints" in values:
        values["endpoints"] = tuple(Endpoint(**_with_sorted_tags(endpoint)) for endpoint in values["endpoints"])
    if "tls" in values:
        values["tls"] = InboundTls(**values["tls"]) if kind == "inbound" else _outbound_tls(**values["tls"])
    if "route" in values:
        values["route"] = _route(**values["route"])
    if "external" in values:
        values["external"] = tuple(_external(**endpoint) for endpoint in values["external"])
    if "identities" in values:
        values["identities"] = tuple(values["identities"])
    if "load_balancer" in values:
        values["load_balancer"] = freeze(values["load_balancer"])
    if "names" in values:
        values["names"] = tuple((name, tuple(addresses)) for name, addresses in sorted(values["names"].items()))
    if "chains" in values:
        values["chains"] = tuple(values["chains"])
    if "source" in values:
        values["source"] = Source(**values["source"])
    policies, sender = values.pop("policies", {}), values.pop("sender", "")
    if policies:
        position = "passthrough" if kind == "transparent_proxy" else kind
        found = policy_effects(policies, position, str(values.get("protocol", "tcp")))
        values["effects"] = tuple(effect.said_by(sender) for effect in found)
    return _PARTS[kind](**_with_sorted_tags(values))


def _outbound_tls(service: str = "", services: Iterable[str] = (), **fields: Any) -> OutboundTls:
    """How to connect to a service, or to those that are instances of one."""
    return OutboundTls(services=(service,) if service else tuple(services), **fields)


def _route(legs: Mapping[str, int], rules: Iterable[Mapping[str, Any]] = ()) -> OutboundRoute:
    """A route from clusters with their weights, and rules of the same form."""
    return OutboundRoute(
        _legs(legs),
        tuple(RequestRule(merge([r["match"]]), merge([r.get("modify", {})]), _legs(r["legs"])) for r in rules),
    )


def _legs(weights: Mapping[str, int]) -> tuple[Leg, ...]:
    return tuple(Leg(name, weight, is_external=name.startswith("outside")) for name, weight in weights.items())


def _external(tls: Mapping[str, Any] | None = None, **fields: Any) -> ExternalEndpoint:
    """An endpoint outside of the mesh, with certificates as texts."""
    texts = {} if tls is None else {key: value.encode() if key in _PEM else value for key, value in tls.items()}
    if "verified_names" in texts:
        texts["verified_names"] = tuple(VerifiedName(**name) for name in texts["verified_names"])
        texts["versions"] = tuple(texts["versions"])
    return ExternalEndpoint(**_with_sorted_tags(fields), tls=None if tls is None else ExternalTls(**texts))


def policy_effects(confs: Mapping[str, Mapping[str, Any]], kind: str, protocol: str) -> tuple[Effect, ...]:
    """What policies change in a kind of part: confs as users write them, by the kind of policy."""
    return effects(_settings(confs), kind, protocol)


def _settings(confs: Mapping[str, Mapping[str, Any]]) -> tuple[Setting, ...]:
    return tuple(Setting(policy, merge([conf])) for policy, conf in confs.items())


_ORIGINS: dict[type[Part], str] = {
    AdminInterface: modifications.ADMIN,
    TransparentProxy: modifications.TRANSPARENT,
    DnsTable: modifications.DNS,
    Inbound: modifications.INBOUND,
    Outbound: modifications.OUTBOUND,
    Destination: modifications.OUTBOUND,
    TrustBundle: modifications.SECRETS,
    Collector: modifications.TRACING,
    MetricsPort: modifications.METRICS,
    LauncherMetrics: modifications.METRICS,
    LauncherConfig: modifications.METRICS,
    CollectorSocket: modifications.METRICS,
}


def messages(scenario: str) -> tuple[Message, ...]:
    """All that is generated for a scenario, as its template has it where it has one."""
    found = tuple(parts(scenario))
    wanted = template(_settings(_of_proxy(scenario)))
    if wanted is None:
        return tuple(message for each in found for message in generate(each))
    modified = (
        message
        for each in found
        if wanted.keeps(_ORIGINS[type(each)])
        for message in modifications.modified(wanted, _ORIGINS[type(each)], map(_copy, generate(each)))
    )
    return (*modified, *modifications.added(wanted))


def _copy(message: Message) -> Message:
    # Generators may hand out one message to all who ask.
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _of_proxy(scenario: str) -> Mapping[str, Mapping[str, Any]]:
    """What is said of the proxy as a whole."""
    document = _document(scenario)
    return {kind: conf for item in document if "proxy" in item for kind, conf in item["proxy"]["policies"].items()}


def documents(generated: Iterable[Message]) -> dict[str, list[Any]]:
    """Messages as documents, by the file of their type; a type without messages has no file."""
    by_file: dict[str, list[Any]] = {}
    for message in generated:
        file = FILES[TypeUrl(f"type.googleapis.com/{message.DESCRIPTOR.full_name}")]
        by_file.setdefault(file, []).append(document(message))
    return by_file


def document(message: Message) -> Any:
    """A message as the plain values of protobuf's JSON."""
    return json.loads(json_format.MessageToJson(message))


def tags(pairs: Mapping[str, str]) -> Tags:
    """Tags as parts hold them."""
    return tuple(sorted(pairs.items()))


def _with_sorted_tags(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tags(value) if key in ("tags", "labels") else value for key, value in fields.items()}
