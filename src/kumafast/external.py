"""External services as clients see them: an endpoint each, with the certificates that their TLS takes.

In: external services, a way to find secrets. Out: an `ExternalEndpoint`, or none where what its TLS needs cannot be
had: what was to be reached by TLS is never reached without. Never: a look-up of a host, which is Envoy's.
"""

from __future__ import annotations

import logging

from kumafast.addresses import is_ip
from kumafast.generation.proxy import ExternalEndpoint, ExternalTls
from kumafast.identity.authority import AuthorityError
from kumafast.identity.backends import FindSecret, read_source
from kumafast.resources import ExternalService
from kumafast.resources.data_source import DataSource
from kumafast.resources.tags import SERVICE_TAG

_LOG = logging.getLogger(__name__)


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
