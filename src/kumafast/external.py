"""Services outside of the mesh as clients see them: endpoints, with the certificates that their TLS takes.

In: external services of either form, a way to find secrets. Out: `ExternalEndpoint`s, none where what their TLS needs
cannot be had: what was to be reached by TLS is never reached without. Never: a look-up of a host, which is Envoy's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from kumafast.addresses import is_ip
from kumafast.generation.proxy import ExternalEndpoint, ExternalTls, VerifiedName
from kumafast.identity.authority import AuthorityError
from kumafast.identity.backends import FindSecret, read_source
from kumafast.registry.external_permissions import Clients
from kumafast.resources import ExternalService, MeshExternalService
from kumafast.resources.data_source import DataSource
from kumafast.resources.mesh_external_service import (
    SECURED,
    SKIP_ALL,
    SKIP_AUTHORITY,
    SKIP_NAMES,
    CertificateSource,
    Tls,
    Verification,
    Version,
)
from kumafast.resources.tags import SERVICE_TAG

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """Who serves a destination from outside of the mesh."""

    protocols: tuple[str, ...]
    endpoints: tuple[ExternalEndpoint, ...]
    permissions: tuple[tuple[str, Clients], ...] = ()
    """Of each endpoint the external service that it is, and who may reach it; none where anybody may reach all."""

    def permitted(self, services: Set[str]) -> tuple[ExternalEndpoint, ...]:
        """The endpoints for a client that may reach these external services; the same object where that is all."""
        if all(name in services for name, _ in self.permissions):
            return self.endpoints
        judged = zip(self.endpoints, self.permissions, strict=True)
        return tuple(each for each, (name, _) in judged if name in services)


def outside(
    services: Iterable[ExternalService], find: FindSecret, clients: Callable[[ExternalService], Clients]
) -> Outside | None:
    """What some external services are together; None for none. O(them)."""
    held = list(services)
    if not held:
        return None
    endpoints = [(found, service) for service in held if (found := endpoint(service, find)) is not None]
    return Outside(
        protocols=tuple(sorted({service.protocol for service in held})),
        endpoints=tuple(found for found, _ in endpoints),
        permissions=tuple((service.name, clients(service)) for _, service in endpoints),
    )


def endpoint(service: ExternalService, find: FindSecret) -> ExternalEndpoint | None:
    """An external service as an endpoint; None where a certificate or key of its cannot be read, which is logged.

    Files are the control plane's own, and read now.
    """
    try:
        tls = _tls(service, find)
    except AuthorityError as error:
        _LOG.warning("mesh %s: external service %s is no endpoint: %s", service.mesh, service.name, error)
        return None
    tags = tuple((key, value) for key, value in service.tags.items() if key != SERVICE_TAG)
    return ExternalEndpoint(service.host, service.port, tags, tls)


def _tls(service: ExternalService, find: FindSecret) -> ExternalTls | None:
    tls = service.tls
    if tls is None:
        return None
    authority, chain, key = (
        _read(name, source, find)
        for name, source in (("caCert", tls.ca_cert), ("clientCert", tls.client_cert), ("clientKey", tls.client_key))
    )
    # A server's name is never an address.
    name = tls.server_name or ("" if is_ip(service.host) else service.host)
    return ExternalTls(
        server_name=name,
        authority=authority,
        verified_name="" if tls.skip_hostname_verification else name or service.host,
        chain=chain,
        key=key,
        allows_renegotiation=bool(tls.allow_renegotiation),
    )


def _read(field: str, source: DataSource | None, find: FindSecret) -> bytes:
    return b"" if source is None else read_source(field, source.model_dump(by_alias=True), find)


_ENVOY_VERSIONS = {"TLS10": "TLSv1_0", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}


def service_endpoints(service: MeshExternalService, find: FindSecret) -> tuple[ExternalEndpoint, ...]:
    """A MeshExternalService as endpoints, by priority as it is written; none where a certificate cannot be read."""
    spec = service.spec
    if spec.extension is not None:
        return ()
    try:
        return tuple(
            ExternalEndpoint(
                each.address,
                each.port,
                tls=_service_tls(spec.tls, each.address, find) if spec.tls is not None and spec.tls.enabled else None,
                priority=each.priority,
            )
            for each in spec.endpoints
        )
    except AuthorityError as error:
        _LOG.warning("mesh %s: MeshExternalService %s has no endpoints: %s", service.mesh, service.name, error)
        return ()


def _service_tls(tls: Tls, address: str, find: FindSecret) -> ExternalTls:
    verification = tls.verification or Verification()
    mode, version = verification.mode or SECURED, tls.version or Version()
    authority, chain, key = (
        _read_certificate(name, source, find)
        for name, source in (
            ("caCert", verification.ca_cert),
            ("clientCert", verification.client_cert),
            ("clientKey", verification.client_key),
        )
    )
    if mode in (SKIP_ALL, SKIP_AUTHORITY):
        authority = b""
    elif not authority:
        raise AuthorityError("verification.caCert: an authority is needed to verify by; there is none of the system")
    names = tuple(VerifiedName(each.value, each.is_exact) for each in verification.subject_alt_names)
    name = verification.server_name or ("" if is_ip(address) else address)
    return ExternalTls(
        server_name=name,
        authority=authority,
        verified_name="" if mode == SKIP_NAMES or names else name or address,
        chain=chain,
        key=key,
        allows_renegotiation=tls.allow_renegotiation,
        verified_names=() if mode == SKIP_NAMES else names,
        versions=(_ENVOY_VERSIONS.get(version.min, ""), _ENVOY_VERSIONS.get(version.max, "")),
    )


def _read_certificate(field: str, source: CertificateSource | None, find: FindSecret) -> bytes:
    return b"" if source is None else read_source(field, source.model_dump(by_alias=True), find)
