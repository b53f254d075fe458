"""Documents that must be refused, and with what; shared by the tests of every front end.

In: nothing. Out: `BAD_DOCUMENTS`. Never: documents that are merely unusual.

`malformed` documents do not have the structure of a resource: `parse` raises, with the violations given here. `invalid`
ones parse, and `validate` returns exactly the violations given here, in this order.
"""

from __future__ import annotations

from tests.resources.bad_gateways import BAD_GATEWAY_ROUTES, BAD_GATEWAYS
from tests.resources.bad_mesh_observers import BAD_MESH_OBSERVERS
from tests.resources.bad_mesh_policies import BAD_MESH_POLICIES
from tests.resources.bad_observers import BAD_OBSERVERS, BAD_TEMPLATES
from tests.resources.bad_outside import BAD_EXTERNAL_SERVICES, BAD_VIRTUAL_OUTBOUNDS
from tests.resources.bad_policies import BAD_POLICIES
from tests.resources.bad_routes import BAD_PERMISSIONS, BAD_ROUTES
from tests.resources.bad_target_refs import BAD_TARGET_REFS
from tests.resources.document_forms import (
    ABSENT,
    ADDRESS,
    IN,
    INBOUND_INTERFACE,
    IP_ADDRESS,
    KINDS,
    LISTEN,
    MESH_NAME,
    NAME,
    OUT,
    OUTBOUND_INTERFACE,
    PORT_RANGE,
    SAME_SERVICE,
    SERVICE,
    TAG_NAME,
    TAG_VALUE,
    BadDocument,
    dataplane,
    invalid,
    mesh,
    with_fields,
    with_gateway,
    with_inbound,
    with_listeners,
    with_networking,
    with_outbound,
)
from tests.resources.malformed_documents import MALFORMED_DOCUMENTS

_NAMES: list[BadDocument] = [
    invalid("no-name", dataplane(name=ABSENT), ("name", "cannot be empty")),
    invalid("null-name", dataplane(name=None), ("name", "cannot be empty")),
    invalid("empty-name", dataplane(name=""), ("name", "cannot be empty")),
    invalid("long-name", dataplane(name="a" * 254), ("name", "value length must less or equal 253")),
    invalid("name-upper-case", dataplane(name="Web"), ("name", NAME)),
    invalid("name-underscore", dataplane(name="web_1"), ("name", NAME)),
    invalid("name-dash-first", dataplane(name="-web"), ("name", NAME)),
    invalid("name-dot-last", dataplane(name="web."), ("name", NAME)),
    invalid("name-newline", dataplane(name="web\n"), ("name", NAME)),
    invalid("name-slash", dataplane(name="../web"), ("name", NAME)),
    invalid("no-mesh", dataplane(mesh=ABSENT), ("mesh", "cannot be empty")),
    invalid("long-mesh", dataplane(mesh="a" * 254), ("mesh", "value length must less or equal 253")),
    invalid("mesh-upper-case", dataplane(mesh="Default"), ("mesh", MESH_NAME)),
    invalid("mesh-slash", dataplane(mesh="a/b"), ("mesh", MESH_NAME)),
    invalid("mesh-name-underscore", mesh(name="my_mesh"), ("name", NAME)),
    invalid("mesh-no-name", mesh(name=ABSENT), ("name", "cannot be empty")),
]

_INBOUNDS: list[BadDocument] = [
    invalid("no-networking", dataplane(networking=None), ("networking", "must be defined")),
    invalid("no-address", with_networking(address=ABSENT), ("networking.address", "address can't be empty")),
    invalid("empty-address", with_networking(address=""), ("networking.address", "address can't be empty")),
    invalid("any-address", with_networking(address="0.0.0.0"), ("networking.address", "must not be 0.0.0.0 or ::")),
    invalid("any-address-v6", with_networking(address="::"), ("networking.address", "must not be 0.0.0.0 or ::")),
    invalid("address-nonsense", with_networking(address="..>_<.."), ("networking.address", ADDRESS)),
    invalid("address-out-of-range", with_networking(address="10.0.0.300"), ("networking.address", ADDRESS)),
    invalid("address-with-port", with_networking(address="10.0.0.1:80"), ("networking.address", ADDRESS)),
    invalid("advertised-address", with_networking(advertisedAddress="a b"), ("networking.advertisedAddress", ADDRESS)),
    invalid("no-port", with_inbound(port=ABSENT), (f"{IN}.port", PORT_RANGE)),
    invalid("null-port", with_inbound(port=None), (f"{IN}.port", PORT_RANGE)),
    invalid("port-zero", with_inbound(port=0), (f"{IN}.port", PORT_RANGE)),
    invalid("port-negative", with_inbound(port=-1), (f"{IN}.port", PORT_RANGE)),
    invalid("port-too-big", with_inbound(port=65536), (f"{IN}.port", PORT_RANGE)),
    invalid("service-port-too-big", with_inbound(servicePort=65536), (f"{IN}.servicePort", PORT_RANGE)),
    invalid("service-port-negative", with_inbound(servicePort=-5), (f"{IN}.servicePort", PORT_RANGE)),
    invalid(
        "service-address-name",
        with_inbound(serviceAddress="localhost"),
        (f"{IN}.serviceAddress", "serviceAddress has to be valid IP address"),
    ),
    invalid("service-is-dataplane", with_inbound(serviceAddress="10.0.0.1"), (f"{IN}.serviceAddress", SAME_SERVICE)),
    invalid(
        "service-is-inbound",
        with_inbound(address="10.0.0.2", serviceAddress="10.0.0.2", servicePort=8080),
        (f"{IN}.serviceAddress", SAME_SERVICE),
    ),
    invalid("inbound-address-name", with_inbound(address="web"), (f"{IN}.address", IP_ADDRESS)),
    invalid("no-service-tag", with_inbound(tags={"v": "1"}), (f'{IN}.tags["kuma.io/service"]', "tag has to exist")),
    invalid("tag-empty", with_inbound(tags={**SERVICE, "v": ""}), (f'{IN}.tags["v"]', "tag value must be non-empty")),
    invalid("tag-value", with_inbound(tags={**SERVICE, "v": "a b"}), (f'{IN}.tags["v"]', TAG_VALUE)),
    invalid("tag-value-slash", with_inbound(tags={**SERVICE, "v": "a/b"}), (f'{IN}.tags["v"]', TAG_VALUE)),
    invalid("tag-value-star", with_inbound(tags={**SERVICE, "v": "*"}), (f'{IN}.tags["v"]', TAG_VALUE)),
    invalid("tag-value-newline", with_inbound(tags={**SERVICE, "v": "a\n"}), (f'{IN}.tags["v"]', TAG_VALUE)),
    invalid("tag-value-nul", with_inbound(tags={**SERVICE, "v": "\0"}), (f'{IN}.tags["v"]', TAG_VALUE)),
    invalid("tag-name", with_inbound(tags={**SERVICE, "v=1": "a"}), (f'{IN}.tags["v=1"]', TAG_NAME)),
    invalid("tag-name-quote", with_inbound(tags={**SERVICE, 'v"': "a"}), (f'{IN}.tags["v\\""]', TAG_NAME)),
    invalid("tag-name-empty", with_inbound(tags={**SERVICE, "": "a"}), (f"{IN}.tags", "tag name must be non-empty")),
    invalid(
        "tags-in-order",
        with_inbound(tags={"z ": "", "a ": "b c", "kuma.io/protocol": "smtp"}),
        (
            f'{IN}.tags["kuma.io/protocol"]',
            'tag "kuma.io/protocol" has an invalid value "smtp". Allowed values: grpc, http, http2, kafka, tcp',
        ),
        (f'{IN}.tags["a "]', TAG_NAME),
        (f'{IN}.tags["a "]', TAG_VALUE),
        (f'{IN}.tags["z "]', TAG_NAME),
        (f'{IN}.tags["z "]', "tag value must be non-empty"),
        (f'{IN}.tags["kuma.io/service"]', "tag has to exist"),
    ),
    invalid(
        "protocol-upper-case",
        with_inbound(tags={**SERVICE, "kuma.io/protocol": "HTTP"}),
        (
            f'{IN}.tags["kuma.io/protocol"]',
            'tag "kuma.io/protocol" has an invalid value "HTTP". Allowed values: grpc, http, http2, kafka, tcp',
        ),
    ),
    invalid(
        "protocol-field",
        with_inbound(protocol="smtp"),
        (f"{IN}.protocol", "invalid value. Allowed values: grpc, http, http2, kafka, tcp"),
    ),
    invalid(
        "service-probe",
        with_inbound(
            serviceProbe={"interval": "0s", "timeout": "soon", "unhealthyThreshold": 0, "healthyThreshold": 2**32}
        ),
        (f"{IN}.serviceProbe.interval", "must have a positive value"),
        (f"{IN}.serviceProbe.timeout", "must have a valid value"),
        (f"{IN}.serviceProbe.unhealthyThreshold", "must have a positive value"),
        (f"{IN}.serviceProbe.healthyThreshold", "must be at most 4294967295"),
    ),
    invalid("interface-nonsense", with_inbound(port=ABSENT, interface="web"), (f"{IN}.interface", INBOUND_INTERFACE)),
    invalid(
        "interface-port-too-big",
        with_inbound(port=ABSENT, interface="10.0.0.1:9090:65536"),
        (f"{IN}.interface", INBOUND_INTERFACE),
    ),
    invalid(
        "interface-port-zero",
        with_inbound(port=ABSENT, interface="10.0.0.1:0:80"),
        (f"{IN}.interface", INBOUND_INTERFACE),
    ),
    invalid(
        "interface-bad-ip",
        with_inbound(port=ABSENT, interface="10.0.0.256:90:80"),
        (f"{IN}.interface", INBOUND_INTERFACE),
    ),
    invalid(
        "interface-newline",
        with_inbound(port=ABSENT, interface="10.0.0.1:90:80\n"),
        (f"{IN}.interface", INBOUND_INTERFACE),
    ),
    invalid(
        "interface-beside-port",
        with_inbound(interface="10.0.0.1:90:80"),
        (f"{IN}.interface", "cannot be defined together with port, servicePort or address"),
    ),
]

_OUTBOUNDS: list[BadDocument] = [
    invalid("outbound-no-port", with_outbound(port=ABSENT), (f"{OUT}.port", PORT_RANGE)),
    invalid("outbound-port-too-big", with_outbound(port=70_000), (f"{OUT}.port", PORT_RANGE)),
    invalid("outbound-address", with_outbound(address="web"), (f"{OUT}.address", IP_ADDRESS)),
    invalid(
        "outbound-no-tags", with_outbound(tags=ABSENT), (f"{OUT}.tags", 'mandatory tag "kuma.io/service" is missing')
    ),
    invalid(
        "outbound-no-service",
        with_outbound(tags={"v": "1"}),
        (f"{OUT}.tags", 'mandatory tag "kuma.io/service" is missing'),
    ),
    invalid(
        "outbound-tag",
        with_outbound(tags={"kuma.io/service": "a b"}),
        (f'{OUT}.tags["kuma.io/service"]', TAG_VALUE),
    ),
    invalid(
        "outbound-interface",
        with_outbound(port=ABSENT, interface="::1:80"),
        (f"{OUT}.interface", OUTBOUND_INTERFACE),
    ),
    invalid(
        "backend-kind",
        with_outbound(tags=ABSENT, backendRef={"kind": "Service", "name": "a", "port": 80}),
        (f"{OUT}.backendRef.kind", KINDS),
    ),
    invalid(
        "backend-no-name",
        with_outbound(tags=ABSENT, backendRef={"kind": "MeshService", "port": 80}),
        (f"{OUT}.backendRef", "either 'name' or 'labels' should be specified"),
    ),
    invalid(
        "backend-no-port",
        with_outbound(tags=ABSENT, backendRef={"kind": "MeshService", "name": "a"}),
        (f"{OUT}.backendRef.port", PORT_RANGE),
    ),
    invalid(
        "backend-and-tags",
        with_outbound(backendRef={"kind": "MeshExternalService", "name": "a"}),
        (f"{OUT}.backendRef", "both backendRef and tags/service cannot be defined"),
    ),
    invalid(
        "backend-and-service",
        with_outbound(tags=ABSENT, service="redis", backendRef={"kind": "MeshExternalService", "name": "a"}),
        (f"{OUT}.backendRef", "both backendRef and tags/service cannot be defined"),
    ),
]

_REST_OF_DATAPLANE: list[BadDocument] = [
    invalid("admin-port", with_networking(admin={"port": 65536}), ("networking.admin.port", PORT_RANGE)),
    invalid(
        "admin-is-inbound",
        with_networking(address="127.0.0.1", admin={"port": 8080}),
        ("networking.admin.port", "must differ from inbound"),
    ),
    invalid(
        "admin-is-workload",
        with_networking(inbound=[{"port": 8080, "servicePort": 9000, "tags": SERVICE}], admin={"port": 9000}),
        ("networking.admin.port", "must differ from inbound"),
    ),
    invalid(
        "admin-is-outbound",
        with_networking(outbound=[{"port": 9090, "tags": {"kuma.io/service": "b"}}], admin={"port": 9090}),
        ("networking.admin.port", "must differ from outbound"),
    ),
    invalid(
        "delegated-inbound",
        with_gateway(inbound=[{"port": 80, "tags": SERVICE}]),
        ("networking.inbound", "inbound cannot be defined for delegated gateways"),
    ),
    invalid(
        "delegated-listeners",
        with_gateway(listeners=[{"type": "ZoneEgress", "port": 80}]),
        ("networking.listeners", "listeners cannot be defined for delegated gateways"),
    ),
    invalid(
        "builtin-everything",
        with_fields(
            with_gateway(
                "BUILTIN",
                inbound=[{"port": 80, "tags": SERVICE}],
                outbound=[{"port": 81, "tags": SERVICE}],
                listeners=[{"type": "ZoneEgress", "port": 82}],
            ),
            probes={"port": 9000},
        ),
        ("networking.inbound", "inbound cannot be defined for builtin gateways"),
        ("networking.outbound", "outbound cannot be defined for builtin gateways"),
        ("networking.listeners", "listeners cannot be defined for builtin gateways"),
        ("networking.probes", "probes cannot be defined for builtin gateways"),
    ),
    invalid(
        "gateway-no-service",
        with_gateway(tags={}),
        ("networking.gateway.tags", 'mandatory tag "kuma.io/service" is missing'),
    ),
    invalid(
        "gateway-protocol",
        with_gateway(tags={**SERVICE, "kuma.io/protocol": "http"}),
        (
            'networking.gateway.tags["kuma.io/protocol"]',
            'other values than tcp are not allowed, provided value "http"',
        ),
    ),
    invalid(
        "listener-type",
        with_listeners({"type": "Ingress"}),
        (f"{LISTEN}.type", "type must be ZoneIngress or ZoneEgress"),
    ),
    invalid("listener-port", with_listeners({"port": 0}), (f"{LISTEN}.port", PORT_RANGE)),
    invalid(
        "listener-name-of-inbound",
        with_listeners({"name": "8080"}, inbound=[{"port": 8080, "tags": SERVICE}]),
        (f"{LISTEN}.name", 'name "8080" must be unique across inbounds and listeners'),
    ),
    invalid(
        "listener-twice",
        with_listeners({}, {"name": "other"}),
        ("networking.listeners[1]", "address:port 10.0.0.1:10001 is already used by another listener"),
    ),
    invalid(
        "listener-two-types",
        with_listeners({}, {"name": "other", "type": "ZoneEgress"}),
        ("networking.listeners[1]", "address:port 10.0.0.1:10001 is used by listeners of different types"),
    ),
    invalid(
        "listener-is-inbound",
        with_listeners({"port": 8080}, inbound=[{"port": 8080, "tags": SERVICE}]),
        (LISTEN, "address:port 10.0.0.1:8080 collides with an inbound listener"),
    ),
    invalid(
        "redirect-port",
        with_networking(transparentProxying={"redirectPort": 65536}),
        ("networking.transparentProxying.redirectPortOutbound", PORT_RANGE),
    ),
    invalid(
        "reachable-backends",
        with_networking(
            transparentProxying={
                "reachableBackends": {
                    "refs": [
                        {"kind": "Service", "name": "a"},
                        {"kind": "MeshService"},
                        {"kind": "MeshService", "namespace": "n"},
                        {"kind": "MeshService", "name": "A", "labels": {"a": "b"}},
                    ]
                }
            }
        ),
        ("networking.transparentProxying.reachableBackends.refs[0].kind", KINDS),
        ("networking.transparentProxying.reachableBackends.refs[1].name", "name or labels are required"),
        (
            "networking.transparentProxying.reachableBackends.refs[2].name",
            "name is required, when namespace is defined",
        ),
        ("networking.transparentProxying.reachableBackends.refs[3].name", NAME),
        (
            "networking.transparentProxying.reachableBackends.refs[3].labels",
            "labels cannot be defined when name is specified",
        ),
    ),
    invalid(
        "probes",
        dataplane(probes={"port": 0, "endpoints": [{"inboundPort": 70_000, "inboundPath": "x", "path": ""}]}),
        ("probes.port", PORT_RANGE),
        ("probes.endpoints[0].inboundPort", PORT_RANGE),
        ("probes.endpoints[0].inboundPath", "should be a valid URL Path"),
        ("probes.endpoints[0].path", "should be a valid URL Path"),
    ),
    invalid(
        "metrics-type",
        dataplane(metrics={"type": "statsd"}),
        ("metrics.type", 'unknown backend type. Available backends: "prometheus"'),
    ),
    invalid(
        "everything-in-order",
        dataplane(
            {
                "address": "0.0.0.0",
                "inbound": [{"port": 0, "tags": {"v": ""}}, {"port": 1, "servicePort": 99_999, "tags": SERVICE}],
                "outbound": [{"port": 70_000, "address": "x"}],
            },
            name="Web_1",
            mesh="",
            probes={"port": -1},
            metrics={"type": "none"},
        ),
        ("name", NAME),
        ("mesh", "cannot be empty"),
        ("networking.address", "must not be 0.0.0.0 or ::"),
        (f"{IN}.port", PORT_RANGE),
        (f'{IN}.tags["v"]', "tag value must be non-empty"),
        (f'{IN}.tags["kuma.io/service"]', "tag has to exist"),
        ("networking.inbound[1].servicePort", PORT_RANGE),
        (f"{OUT}.port", PORT_RANGE),
        (f"{OUT}.address", IP_ADDRESS),
        (f"{OUT}.tags", 'mandatory tag "kuma.io/service" is missing'),
        ("probes.port", PORT_RANGE),
        ("metrics.type", 'unknown backend type. Available backends: "prometheus"'),
    ),
]

_BUILTIN = {"name": "ca-1", "type": "builtin"}

_MESHES: list[BadDocument] = [
    invalid(
        "mtls-unknown-backend",
        mesh(mtls={"enabledBackend": "ca-2", "backends": [_BUILTIN]}),
        ("mtls.enabledBackend", "has to be set to one of the backends in the mesh"),
    ),
    invalid(
        "mtls-same-name",
        mesh(mtls={"backends": [_BUILTIN, _BUILTIN]}),
        ("mtls.backends[1].name", '"ca-1" name is already used for another backend'),
    ),
    invalid(
        "mtls-type",
        mesh(mtls={"backends": [{"name": "ca-1", "type": "oracle"}]}),
        ("mtls.backends[0].type", "could not find installed plugin for this type"),
    ),
    invalid(
        "mtls-no-name",
        mesh(mtls={"backends": [{"type": "builtin"}]}),
        ("mtls.backends[0].name", "cannot be empty"),
    ),
    invalid(
        "mtls-expiration",
        mesh(mtls={"backends": [{**_BUILTIN, "dpCert": {"rotation": {"expiration": "one day"}}}]}),
        ("mtls.backends[0].dpCert.rotation.expiration", "has to be a valid format"),
    ),
    invalid(
        "logging",
        mesh(
            logging={
                "defaultBackend": "other",
                "backends": [
                    {"type": "file"},
                    {"name": "a", "type": "tcp", "conf": {"address": "host"}},
                    {"name": "a", "type": "tcp"},
                    {"name": "b", "type": "syslog"},
                ],
            }
        ),
        ("logging.backends[0].name", "cannot be empty"),
        ("logging.backends[0].config.path", "cannot be empty"),
        ("logging.backends[1].config.address", "has to be in format of HOST:PORT"),
        ("logging.backends[2].config.address", "cannot be empty"),
        ("logging.backends[2].name", '"a" name is already used for another backend'),
        ("logging.backends[3].type", 'unknown backend type. Available backends: "tcp", "file"'),
        ("logging.defaultBackend", "has to be set to one of the logging backend in mesh"),
    ),
    invalid(
        "tracing",
        mesh(
            tracing={
                "defaultBackend": "other",
                "backends": [
                    {
                        "name": "a",
                        "type": "zipkin",
                        "sampling": 101,
                        "conf": {"url": "http://z/api", "apiVersion": "2"},
                    },
                    {"name": "b", "type": "zipkin", "conf": {"url": "nowhere"}},
                    {"name": "c", "type": "datadog", "conf": {"address": "host", "port": 99999}},
                    {"name": "d", "type": "datadog", "conf": {"port": 80}},
                    {"name": "e", "type": "jaeger"},
                ],
            }
        ),
        ("tracing.backends[0].sampling", "has to be in [0.0 - 100.0] range"),
        ("tracing.backends[0].config.apiVersion", "has invalid value. Allowed values: httpJsonV1, httpJson, httpProto"),
        ("tracing.backends[0].config.url", "port has to be explicitly specified"),
        ("tracing.backends[1].config.url", "invalid URL"),
        ("tracing.backends[2].config.port", "port must be in the range [1, 65535]"),
        ("tracing.backends[3].config.address", "cannot be empty"),
        ("tracing.backends[4].type", 'unknown backend type. Available backends: "zipkin", "datadog"'),
        ("tracing.defaultBackend", "has to be set to one of the tracing backend in mesh"),
    ),
    invalid(
        "metrics",
        mesh(metrics={"enabledBackend": "m", "backends": [{"name": "a", "type": "statsd"}]}),
        ("metrics.backends[0].type", 'unknown backend type. Available backends: "prometheus"'),
        ("metrics.enabledBackend", "has to be set to one of the backends in the mesh"),
    ),
    invalid(
        "constraints",
        mesh(
            constraints={"dataplaneProxy": {"requirements": [{"tags": {}}], "restrictions": [{"tags": {"a": "b c"}}]}}
        ),
        ("constraints.dataplaneProxy.requirements[0].tags", "must have at least one tag"),
        (
            'constraints.dataplaneProxy.restrictions[0].tags["a"]',
            'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"',
        ),
    ),
]

BAD_DOCUMENTS: list[BadDocument] = [
    *MALFORMED_DOCUMENTS,
    *_NAMES,
    *_INBOUNDS,
    *_OUTBOUNDS,
    *_REST_OF_DATAPLANE,
    *_MESHES,
    *BAD_POLICIES,
    *BAD_MESH_POLICIES,
    *BAD_MESH_OBSERVERS,
    *BAD_ROUTES,
    *BAD_PERMISSIONS,
    *BAD_OBSERVERS,
    *BAD_TEMPLATES,
    *BAD_VIRTUAL_OUTBOUNDS,
    *BAD_EXTERNAL_SERVICES,
    *BAD_GATEWAYS,
    *BAD_GATEWAY_ROUTES,
    *BAD_TARGET_REFS,
]
