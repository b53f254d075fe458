"""TLS between sidecars: who shows which certificate to whom, and whom it takes.

In: parts of a proxy. Out: transport sockets, and the secrets that they name. Never: a key that is kept, a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from kumafast.generation import fields, names
from kumafast.generation.fnv import fnv1a
from kumafast.generation.proxy import OutboundTls, TrustBundle
from kumafast.resources.spiffe import mesh_prefix, spiffe_id
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import is_ip

ALPN = "kuma"
"""What sidecars name among themselves, and an application's own TLS does not."""

_NAME = "envoy.transport_sockets.tls"


def downstream_socket(mesh: str, spoken: bytes = b"") -> base_pb2.TransportSocket:
    """For inbounds: only clients with a certificate of the mesh. `spoken`: encoded `TlsParameters`, if any."""
    context = _context(mesh, string_pb2.StringMatcher(prefix=mesh_prefix(mesh)))
    if spoken:
        context.tls_params.MergeFromString(spoken)
    return socket(tls_pb2.DownstreamTlsContext(common_tls_context=context, require_client_certificate={"value": True}))


def upstream_socket(tls: OutboundTls) -> base_pb2.TransportSocket:
    """For clusters: only endpoints with the certificate of that service."""
    wanted = (
        string_pb2.StringMatcher(prefix=mesh_prefix(tls.mesh))
        if service == "*"
        else string_pb2.StringMatcher(exact=spiffe_id(tls.mesh, service))
        for service in tls.services
    )
    context = _context(tls.mesh, *wanted)
    context.alpn_protocols.append(ALPN)
    return socket(tls_pb2.UpstreamTlsContext(common_tls_context=context, sni=tls.sni))


def speak(cluster: cluster_pb2.Cluster, spoken: bytes) -> None:
    """Have a cluster of the mesh speak TLS by these `TlsParameters`, encoded; others are left as they are."""
    packed = cluster.transport_socket.typed_config
    context = tls_pb2.UpstreamTlsContext()
    if packed.Unpack(context) and ALPN in context.common_tls_context.alpn_protocols:
        context.common_tls_context.tls_params.MergeFromString(spoken)
        cluster.transport_socket.CopyFrom(socket(context))


def gateway_socket(certificates: Iterable[str], *, reads_requests: bool) -> base_pb2.TransportSocket:
    """For listeners of gateways: anybody may come, and is shown one of the certificates, given as names of secrets."""
    context = tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2),
        tls_certificate_sds_secret_configs=map(secret_reference, certificates),
        alpn_protocols=("h2", "http/1.1") if reads_requests else (),
    )
    return socket(tls_pb2.DownstreamTlsContext(common_tls_context=context, require_client_certificate={"value": False}))


def outside_socket(host: str) -> base_pb2.TransportSocket:
    """For servers outside of the mesh: any certificate will do."""
    return socket(tls_pb2.UpstreamTlsContext(sni="" if is_ip(host) else host, allow_renegotiation=True))


def trust_bundle(bundle: TrustBundle) -> secret_pb2.Secret:
    """The authorities that a mesh trusts."""
    authorities = "".join(bundle.chains).encode()
    return secret_pb2.Secret(
        name=names.mesh_ca_name(bundle.mesh),
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=authorities)
        ),
    )


def identity_secret(mesh: str, *, chain: bytes, key: bytes) -> secret_pb2.Secret:
    """A workload's certificate and key, PEM."""
    return certificate_secret(names.identity_name(mesh), chain=chain, key=key)


def certificate_secret(name: str, *, chain: bytes, key: bytes) -> secret_pb2.Secret:
    """A certificate and its key, PEM."""
    return secret_pb2.Secret(
        name=name,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=chain),
            private_key=base_pb2.DataSource(inline_bytes=key),
        ),
    )


def server_name(mesh: str, tags: Mapping[str, str]) -> str:
    """What a client calls the part of a service that tags choose, so that gateways between zones can route by it.

    >>> server_name("default", {"kuma.io/service": "backend", "version": "v1"})
    'backend{mesh=default,version=v1}'
    """
    rest = {key: value for key, value in tags.items() if key != SERVICE_TAG}
    pairs = sorted({**rest, "mesh": mesh}.items())
    return f"{tags.get(SERVICE_TAG, '')}{{{','.join(f'{key}={value}' for key, value in pairs)}}}"


_SERVER_NAME_KINDS = {"MeshService": "ms", "MeshExternalService": "mes", "MeshMultiZoneService": "mzms"}
_DNS_LABEL_MAX = 63


def service_server_name(mesh: str, kind: str, name: str, port: int) -> str:
    """What a client calls a port of a service of the mesh.

    The digest tells names apart that are too long for a label and cut.

    >>> service_server_name("default", "MeshService", "backend", 80)
    'a601e0c00295a9fbe.backend.80.default.ms'
    """
    digest = fnv1a(f"{name};{mesh};".encode())
    return f"a{digest:016x}.{_label(name)}.{port}.{_label(mesh)}.{_SERVER_NAME_KINDS[kind]}"


def _label(text: str) -> str:
    return text if len(text) < _DNS_LABEL_MAX else f"{text[: _DNS_LABEL_MAX - 1]}x"


def _context(mesh: str, *peers: string_pb2.StringMatcher) -> tls_pb2.CommonTlsContext:
    matchers = [
        common_pb2.SubjectAltNameMatcher(san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=peer) for peer in peers
    ]
    return tls_pb2.CommonTlsContext(
        tls_certificate_sds_secret_configs=[secret_reference(names.identity_name(mesh))],
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=common_pb2.CertificateValidationContext(match_typed_subject_alt_names=matchers),
            validation_context_sds_secret_config=secret_reference(names.mesh_ca_name(mesh)),
        ),
    )


def secret_reference(name: str) -> secret_pb2.SdsSecretConfig:
    """A secret of another resource, which comes on the same stream."""
    return secret_pb2.SdsSecretConfig(
        name=name,
        sds_config=config_source_pb2.ConfigSource(
            ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
        ),
    )


def socket(context: Message) -> base_pb2.TransportSocket:
    """A transport socket that speaks TLS so."""
    return base_pb2.TransportSocket(name=_NAME, typed_config=fields.packed(context))
