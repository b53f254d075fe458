"""What an Envoy starts with: who it is and where its control plane is. Everything else comes over the stream.

In: `BootstrapParameters`. Out: a `Bootstrap` message, and its YAML. Never: resources of the mesh.

The cluster `access_log_sink` of Kuma's bootstrap is missing on purpose, because nothing would answer it: Envoy would
only log that it cannot reach it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address

import yaml
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import (
    address_pb2,
    base_pb2,
    config_source_pb2,
    extension_pb2,
    grpc_service_pb2,
)
from envoy.config.metrics.v3 import stats_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.regex_engines.v3 import google_re2_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from kumafast.generation import clusters, fields, names
from kumafast.generation.gateways import LIMITS_LAYER
from kumafast.generation.proxy import AdminInterface

_CONNECT_TIMEOUT = timedelta(seconds=1)
_KEEPALIVE_PROBES = 3
_KEEPALIVE_SECONDS = 10
_ADMIN_SOCKET_MODE = 0o600

# Programs of regular expressions are checked where policies are validated; here they only warn.
_RUNTIME = {"re2.max_program_size.error_level": 4294967295, "re2.max_program_size.warn_level": 1000}

# Parts of Envoy's statistics that are labels rather than names; Kuma's dashboards select by them.
_STATS_TAGS = (
    ("name", r"^grpc\.((.+)\.)"),
    ("status", r"^grpc.*streams_closed(_([0-9]+))"),
    ("kafka_name", r"^kafka(\.(\S*[0-9]))\."),
    ("kafka_type", r"^kafka\..*\.(.*?(?=_duration|$))"),
    ("worker", r"(worker_([0-9]+)\.)"),
    ("listener", r"((.+?)\.)rbac\."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapParameters:
    """One Envoy that is about to start: its dataplane, its control plane, what its launcher says of the host.

    `node_cluster` is what Envoy calls its cluster: the service of the dataplane. Without `ca_pem` the control plane is
    spoken to in plaintext. `metadata` is added to the node's metadata; the keys that kumafast sets itself win.
    """

    mesh: str
    name: str
    node_cluster: str
    control_plane_host: str
    control_plane_port: int
    admin: AdminInterface
    ca_pem: bytes | None = None
    token: str | None = None
    uses_delta: bool = True
    uses_hds: bool = True
    dns_port: int | None = None
    has_ipv6: bool = True
    workdir: str = ""
    is_gateway: bool = False
    """Whether it is a built-in gateway, whose listeners have limits that the control plane says."""
    features: tuple[str, ...] = ()
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of the launcher and of Envoy, as they named them: `{"kumaDp": {"version": …}, "envoy": {"version": …}}`."""
    metadata: Mapping[str, object] = field(default_factory=dict)


def bootstrap(parameters: BootstrapParameters) -> bootstrap_pb2.Bootstrap:
    """The bootstrap of an Envoy; its node id is `<mesh>.<name>`. Raises ValueError for a port out of range."""
    for port in (parameters.control_plane_port, parameters.admin.port, parameters.admin.readiness_port):
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"port must be in the range [1, 65535]: {port}")
    ads = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        # Zero waits without end: an Envoy that starts before its control plane stays unready, and does not run empty.
        initial_fetch_timeout=fields.duration(timedelta(0)),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )
    return bootstrap_pb2.Bootstrap(
        node=_node(parameters),
        admin=_admin(parameters.admin),
        dynamic_resources=bootstrap_pb2.Bootstrap.DynamicResources(
            ads_config=_stream_config(parameters, _variant(parameters)), cds_config=ads, lds_config=ads
        ),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            clusters=[_ads_cluster(parameters)], secrets=_secrets(parameters)
        ),
        hds_config=_stream_config(parameters, config_source_pb2.ApiConfigSource.GRPC) if parameters.uses_hds else None,
        layered_runtime=bootstrap_pb2.LayeredRuntime(
            layers=[bootstrap_pb2.RuntimeLayer(name="kuma", static_layer=_struct(_RUNTIME)), *_limits(parameters)]
        ),
        stats_config=stats_pb2.StatsConfig(
            stats_tags=[stats_pb2.TagSpecifier(tag_name=name, regex=regex) for name, regex in _STATS_TAGS]
        ),
        default_regex_engine=extension_pb2.TypedExtensionConfig(
            name="envoy.regex_engines.google_re2", typed_config=fields.packed(google_re2_pb2.GoogleRE2())
        ),
    )


def _limits(parameters: BootstrapParameters) -> list[bootstrap_pb2.RuntimeLayer]:
    if not parameters.is_gateway:
        return []
    config = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
    )
    layer = bootstrap_pb2.RuntimeLayer.RtdsLayer(name=LIMITS_LAYER, rtds_config=config)
    return [bootstrap_pb2.RuntimeLayer(name=LIMITS_LAYER, rtds_layer=layer)]


def to_yaml(message: bootstrap_pb2.Bootstrap) -> str:
    """A bootstrap as Envoy reads it from a file: YAML with the names of protobuf's JSON, keys sorted."""
    # Through JSON, as the dictionary form holds ordered dictionaries, which safe YAML does not know.
    document = json.loads(json_format.MessageToJson(message), parse_float=_whole_where_possible)
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True)


def _node(parameters: BootstrapParameters) -> base_pb2.Node:
    return base_pb2.Node(
        id=f"{parameters.mesh}.{parameters.name}",
        cluster=parameters.node_cluster,
        metadata=_struct({**parameters.metadata, **_own_metadata(parameters)}),
    )


def _own_metadata(parameters: BootstrapParameters) -> dict[str, object]:
    """What the control plane reads again from the stream. Ports are texts, as Kuma's readers expect them."""
    admin = parameters.admin
    optional = {
        "dataplane.admin.socketPath": admin.socket_path,
        "dataplane.admin.address": admin.address,
        "dataplane.admin.port": admin.port,
        "dataplane.readinessReporter.port": admin.readiness_port,
        "dataplane.dns.port": parameters.dns_port,
    }
    return {
        **{key: str(value) for key, value in optional.items() if value is not None},
        "dataplane.proxyType": "dataplane",
        "features": list(parameters.features),
        **({"kumafast.delta": True} if parameters.uses_delta else {}),
        "ipv6Enabled": parameters.has_ipv6,
        "version": {key: dict(value) for key, value in parameters.versions.items()},
        "workdir": parameters.workdir,
    }


def _admin(admin: AdminInterface) -> bootstrap_pb2.Admin | None:
    if admin.socket_path is not None:
        # Whoever opens the admin interface can stop the proxy, so the socket is its owner's alone.
        address = fields.pipe_address(admin.socket_path, mode=_ADMIN_SOCKET_MODE)
    elif admin.port is not None:
        address = fields.socket_address(admin.address or "127.0.0.1", admin.port)
    else:
        return None
    nowhere = fields.packed(file_pb2.FileAccessLog(path="/dev/null"))
    return bootstrap_pb2.Admin(
        address=address,
        access_log=[accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=nowhere)],
    )


def _variant(parameters: BootstrapParameters) -> config_source_pb2.ApiConfigSource.ApiType:
    source = config_source_pb2.ApiConfigSource
    return source.DELTA_GRPC if parameters.uses_delta else source.GRPC


def _stream_config(
    parameters: BootstrapParameters, variant: config_source_pb2.ApiConfigSource.ApiType
) -> config_source_pb2.ApiConfigSource:
    """How a stream to the control plane is opened."""
    source = config_source_pb2.ApiConfigSource
    # The token goes without "Bearer": that is how Kuma's control planes read it.
    credentials = [] if parameters.token is None else [("authorization", parameters.token)]
    return source(
        api_type=variant,
        transport_api_version=config_source_pb2.ApiVersion.V3,
        set_node_on_first_message_only=True,
        grpc_services=[
            grpc_service_pb2.GrpcService(
                envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=names.ADS_CLUSTER),
                initial_metadata=[base_pb2.HeaderValue(key=key, value=value) for key, value in credentials],
            )
        ],
    )


def _ads_cluster(parameters: BootstrapParameters) -> cluster_pb2.Cluster:
    host = parameters.control_plane_host
    cluster = cluster_pb2.Cluster(
        name=names.ADS_CLUSTER,
        connect_timeout=fields.duration(_CONNECT_TIMEOUT),
        load_assignment=clusters.single_endpoint(
            names.ADS_CLUSTER, fields.socket_address(host, parameters.control_plane_port)
        ),
        upstream_connection_options=cluster_pb2.UpstreamConnectionOptions(
            tcp_keepalive=address_pb2.TcpKeepalive(
                keepalive_probes={"value": _KEEPALIVE_PROBES},
                keepalive_time={"value": _KEEPALIVE_SECONDS},
                keepalive_interval={"value": _KEEPALIVE_SECONDS},
            )
        ),
        typed_extension_protocol_options=clusters.http2_options(),
    )
    if _is_ip(host):
        cluster.type = cluster_pb2.Cluster.STATIC
    else:
        cluster.type = cluster_pb2.Cluster.STRICT_DNS
        # A name with an address in each family is tried in both: `localhost` is often served in one of them only.
        cluster.dns_lookup_family = cluster_pb2.Cluster.ALL
    if parameters.ca_pem is not None:
        cluster.transport_socket.CopyFrom(_tls(host))
    return cluster


def _tls(host: str) -> base_pb2.TransportSocket:
    context = tls_pb2.UpstreamTlsContext(
        sni=host,
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_params=common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2),
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(name=names.CONTROL_PLANE_VALIDATION),
        ),
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=fields.packed(context))


def _secrets(parameters: BootstrapParameters) -> list[secret_pb2.Secret]:
    if parameters.ca_pem is None:
        return []
    matcher = common_pb2.SubjectAltNameMatcher
    host = string_pb2.StringMatcher(exact=parameters.control_plane_host)
    validation = common_pb2.CertificateValidationContext(
        trusted_ca=base_pb2.DataSource(inline_bytes=parameters.ca_pem),
        # A certificate may hold the host as a name or as an address; one of the two is enough.
        match_typed_subject_alt_names=[
            matcher(san_type=matcher.DNS, matcher=host),
            matcher(san_type=matcher.IP_ADDRESS, matcher=host),
        ],
    )
    return [secret_pb2.Secret(name=names.CONTROL_PLANE_VALIDATION, validation_context=validation)]


def _whole_where_possible(text: str) -> int | float:
    """A struct knows floating-point numbers only; its whole numbers are to be read as they were written."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _struct(values: Mapping[str, object]) -> Struct:
    struct = Struct()
    # The parser takes nested values of every JSON kind, None among them, which `Struct.update` refuses in lists.
    json_format.ParseDict(dict(values), struct)
    return struct
