"""Documents that do not have the structure of a resource.

In: nothing. Out: `MALFORMED_DOCUMENTS`. Never: documents that parse.
"""

from __future__ import annotations

import datetime

from tests.resources.document_forms import (
    ABSENT,
    IN,
    LIST,
    NUMBER,
    OBJECT,
    OUT,
    SERVICE,
    TEXT,
    BadDocument,
    dataplane,
    malformed,
    mesh,
    with_gateway,
    with_inbound,
    with_networking,
    with_outbound,
)

MALFORMED_DOCUMENTS: list[BadDocument] = [
    malformed("null", None),
    malformed("list", []),
    malformed("text", "Dataplane"),
    malformed("number", 7),
    malformed("no-type", {"name": "web-1", "mesh": "default"}, ("type", "cannot be empty")),
    malformed("empty-type", {"type": "", "name": "web-1"}, ("type", "cannot be empty")),
    malformed("type-number", {"type": 7, "name": "web-1"}, ("type", TEXT)),
    malformed("type-list", {"type": ["Mesh"], "name": "web-1"}, ("type", TEXT)),
    malformed("unknown-type", {"type": "Dataplan", "name": "x"}, ("type", 'unknown resource type "Dataplan"')),
    malformed("type-wrong-case", {"type": "mesh", "name": "x"}, ("type", 'unknown resource type "mesh"')),
    malformed("name-number", dataplane(name=1), ("name", TEXT)),
    malformed("name-list", dataplane(name=["a"]), ("name", TEXT)),
    malformed("name-half-surrogate", dataplane(name="\ud800"), ("name", "must be text in UTF-8")),
    malformed("name-endless", dataplane(name="a" * 70_000), ("name", "must be at most 65536 characters")),
    malformed("mesh-number", dataplane(mesh=1), ("mesh", TEXT)),
    malformed("labels-list", dataplane(labels=["a"]), ("labels", OBJECT)),
    malformed("label-number", dataplane(labels={"team": 7}), ('labels["team"]', TEXT)),
    malformed("label-null", dataplane(labels={"team": {}}), ('labels["team"]', TEXT)),
    malformed("networking-text", dataplane("10.0.0.1"), ("networking", OBJECT)),
    malformed("networking-list", dataplane([]), ("networking", OBJECT)),
    malformed("address-number", with_networking(address=10), ("networking.address", TEXT)),
    malformed("inbound-object", with_networking(inbound={"port": 80}), ("networking.inbound", LIST)),
    malformed("inbound-text", with_networking(inbound="8080"), ("networking.inbound", LIST)),
    malformed("inbound-of-numbers", with_networking(inbound=[8080]), (IN, OBJECT)),
    malformed("inbound-of-null", with_networking(inbound=[None]), (IN, OBJECT)),
    malformed("port-text", with_inbound(port="8080"), (f"{IN}.port", NUMBER)),
    malformed("port-truth", with_inbound(port=True), (f"{IN}.port", NUMBER)),
    malformed("port-fraction", with_inbound(port=80.5), (f"{IN}.port", NUMBER)),
    malformed("port-list", with_inbound(port=[80]), (f"{IN}.port", NUMBER)),
    malformed("port-endless", with_inbound(port=10**30), (f"{IN}.port", "must be a whole number of at most 64 bits")),
    malformed("service-port-text", with_inbound(servicePort="80"), (f"{IN}.servicePort", NUMBER)),
    malformed("tags-list", with_inbound(tags=["web"]), (f"{IN}.tags", OBJECT)),
    malformed("tags-text", with_inbound(tags="web"), (f"{IN}.tags", OBJECT)),
    malformed("tag-number", with_inbound(tags={**SERVICE, "version": 1}), (f'{IN}.tags["version"]', TEXT)),
    malformed("tag-name-number", with_inbound(tags={**SERVICE, 1: "a"}), (f'{IN}.tags["1"]', TEXT)),
    malformed("tag-truth", with_inbound(tags={**SERVICE, "canary": True}), (f'{IN}.tags["canary"]', TEXT)),
    malformed(
        "state", with_inbound(state="Sleeping"), (f"{IN}.state", "must be one of 'Ready', 'NotReady' or 'Ignored'")
    ),
    malformed("ready-text", with_inbound(health={"ready": "yes"}), (f"{IN}.health.ready", "must be true or false")),
    malformed("ready-number", with_inbound(health={"ready": 1}), (f"{IN}.health.ready", "must be true or false")),
    malformed("interface-number", with_inbound(interface=8080), (f"{IN}.interface", TEXT)),
    malformed("outbound-text", with_networking(outbound="x"), ("networking.outbound", LIST)),
    malformed("outbound-port-text", with_outbound(port="x"), (f"{OUT}.port", NUMBER)),
    malformed(
        "outbound-service-number", with_outbound(tags=ABSENT, service=5), (f'{OUT}.tags["kuma.io/service"]', TEXT)
    ),
    malformed("backend-ref-text", with_outbound(backendRef="x"), (f"{OUT}.backendRef", OBJECT)),
    malformed(
        "gateway-type", with_gateway("INGRESS"), ("networking.gateway.type", "must be one of 'DELEGATED' or 'BUILTIN'")
    ),
    malformed("admin-number", with_networking(admin=9901), ("networking.admin", OBJECT)),
    malformed(
        "redirect-port-text",
        with_networking(transparentProxying={"redirectPortInbound": "15006"}),
        ("networking.transparentProxying.redirectPortInbound", NUMBER),
    ),
    malformed(
        "several-at-once",
        dataplane({"address": 1, "inbound": [{"port": "80", "tags": {"a": 1}}], "outbound": [{"port": []}]}, name=2),
        ("name", TEXT),
        ("networking.address", TEXT),
        (f"{IN}.port", NUMBER),
        (f'{IN}.tags["a"]', TEXT),
        (f"{OUT}.port", NUMBER),
    ),
    malformed("probes-list", dataplane(probes=[]), ("probes", OBJECT)),
    malformed(
        "conf-with-date",
        dataplane(metrics={"type": "prometheus", "conf": {"since": datetime.date(2026, 1, 31)}}),
        ("metrics.conf", "must hold only JSON values, not date '2026-01-31'"),
    ),
    malformed("mtls-text", mesh(mtls="on"), ("mtls", OBJECT)),
    malformed("mtls-enabled-text", mesh(mtls={"enabled": "yes"}), ("mtls.enabled", "must be true or false")),
    malformed("mtls-ca-list", mesh(mtls={"enabled": True, "ca": ["builtin"]}), ("mtls.ca", OBJECT)),
    malformed("access-logs-list", mesh(logging={"accessLogs": []}), ("logging.accessLogs", OBJECT)),
    malformed("backends-object", mesh(mtls={"backends": {"name": "ca-1"}}), ("mtls.backends", LIST)),
    malformed(
        "mtls-mode",
        mesh(mtls={"backends": [{"name": "ca-1", "type": "builtin", "mode": "LAX"}]}),
        ("mtls.backends[0].mode", "must be one of 'STRICT' or 'PERMISSIVE'"),
    ),
    malformed(
        "sampling-text",
        mesh(tracing={"backends": [{"name": "t", "type": "zipkin", "sampling": "all"}]}),
        ("tracing.backends[0].sampling", "must be a number"),
    ),
]
