"""Clusters of what is outside of the mesh: their endpoints, inline, and how each is connected to.

In: external endpoints. Out: what they change in a `Cluster`; the secrets that it names. Never: certificates of a mesh,
for there are none out there; a key in a cluster, which is shown to more people than a secret is.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.struct_pb2 import Struct, Value

from kumafast.addresses import is_ip
from kumafast.generation import fields, names, protocols, tls
from kumafast.generation.proxy import Destination, ExternalEndpoint, ExternalTls, VerifiedName

_LOAD_BALANCER = "envoy.lb"
_TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
_WAY = "tls"
"""In the metadata of an endpoint: which of several ways to connect is its own."""


def place(cluster: cluster_pb2.Cluster, endpoints: tuple[ExternalEndpoint, ...], protocol: str) -> None:
    """Make a cluster, which has its name, lead to these endpoints."""
    has_names = not all(is_ip(each.address) for each in endpoints)
    cluster.type = cluster_pb2.Cluster.STRICT_DNS if has_names else cluster_pb2.Cluster.STATIC
    if has_names:
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    ways = _ways(endpoints)
    cluster.load_assignment.cluster_name = cluster.name
    # A cluster without any is one that Envoy knows to be empty. Envoy wants priorities without gaps.
    priorities = sorted({each.priority for each in endpoints})
    localities = [cluster.load_assignment.endpoints.add(priority=level) for level in range(len(priorities))]
    for each in endpoints:
        locality = localities[priorities.index(each.priority)]
        message = locality.lb_endpoints.add(load_balancing_weight={"value": 1})
        message.endpoint.address.CopyFrom(fields.socket_address(each.address, each.port))
        way = ((_WAY, str(ways.index(each.tls))),) if len(ways) > 1 and each.tls is not None else ()
        metadata = fields.metadata({_LOAD_BALANCER: each.tags, _TRANSPORT_SOCKET_MATCH: way})
        if metadata.filter_metadata:
            message.metadata.CopyFrom(metadata)
    if len(ways) == 1 and ways[0] is not None:
        cluster.transport_socket.CopyFrom(_socket(ways[0], protocol, names.external_secret_name(cluster.name, 0)))
    elif len(ways) > 1:
        # Those without TLS match none of these, and then Envoy uses none.
        cluster.transport_socket_matches.extend(_matches(ways, protocol, cluster.name))


def secrets(destination: Destination) -> Iterable[secret_pb2.Secret]:
    """The certificates that are shown to what is outside, with their keys."""
    if destination.external is None:
        return
    for number, way in enumerate(_ways(destination.external)):
        if way is not None and way.shows_certificate:
            name = names.external_secret_name(destination.cluster_name, number)
            yield tls.certificate_secret(name, chain=way.chain, key=way.key)


def _ways(endpoints: tuple[ExternalEndpoint, ...]) -> tuple[ExternalTls | None, ...]:
    return tuple(dict.fromkeys(each.tls for each in endpoints))


def _matches(
    ways: Iterable[ExternalTls | None], protocol: str, cluster_name: str
) -> Iterable[cluster_pb2.Cluster.TransportSocketMatch]:
    for number, way in enumerate(ways):
        if way is not None:
            yield cluster_pb2.Cluster.TransportSocketMatch(
                name=way.server_name or f"tls-{number}",
                match=Struct(fields={_WAY: Value(string_value=str(number))}),
                transport_socket=_socket(way, protocol, names.external_secret_name(cluster_name, number)),
            )


def _socket(way: ExternalTls, protocol: str, secret_name: str) -> base_pb2.TransportSocket:
    upstream = tls_pb2.UpstreamTlsContext(sni=way.server_name, allow_renegotiation=way.allows_renegotiation)
    context = upstream.common_tls_context
    if protocols.is_http(protocol):
        context.alpn_protocols.append("h2" if protocols.is_http2(protocol) else "http/1.1")
    if way.shows_certificate:
        context.tls_certificate_sds_secret_configs.append(tls.secret_reference(secret_name))
    least, greatest = (common_pb2.TlsParameters.TlsProtocol.Value(each) if each else 0 for each in way.versions)
    if least or greatest:
        context.tls_params.tls_minimum_protocol_version = least
        context.tls_params.tls_maximum_protocol_version = greatest
    if way.authority:
        validation = context.validation_context
        validation.trusted_ca.inline_bytes = way.authority
        for name in (VerifiedName(way.verified_name),) if way.verified_name else way.verified_names:
            matcher = string_pb2.StringMatcher(exact=name.value) if name.is_exact else None
            matcher = matcher or string_pb2.StringMatcher(prefix=name.value)
            validation.match_typed_subject_alt_names.add(san_type=_kind_of(name.value), matcher=matcher)
    return tls.socket(upstream)


def _kind_of(name: str) -> common_pb2.SubjectAltNameMatcher.SanType:
    """As what a certificate has a name."""
    if "://" in name:
        return common_pb2.SubjectAltNameMatcher.URI
    return common_pb2.SubjectAltNameMatcher.IP_ADDRESS if is_ip(name) else common_pb2.SubjectAltNameMatcher.DNS
