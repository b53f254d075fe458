"""Which authority an Envoy shall trust for the control plane's certificate.

In: the certificate that is shown, what the launcher brought. Out: an authority in PEM. Never: making certificates.

An Envoy that cannot verify the control plane only logs it, again and again, on another machine. So what would not work
is refused here, where somebody reads the answer.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

from cryptography import x509

from kumafast.rest.errors import UnreachableError
from kumafast.rest.services import DpServices


def authority_for(services: DpServices, *, host: str, given: str) -> bytes | None:
    """The authority in PEM: what the launcher gave, else the certificate's own; None without TLS.

    Raises `UnreachableError` where an Envoy could not verify the control plane under the name `host`.
    """
    shown = services.certificate_pem()
    if shown is None:
        return None
    names = _names(shown)
    if host.lower() not in names and not _covered_by_wildcard(host.lower(), names):
        raise UnreachableError(
            f"the control plane's certificate is not for {host}; it is for {', '.join(sorted(names)) or 'nobody'}"
        )
    if given:
        return _checked(given.encode())
    if not _holds_authority(shown):
        raise UnreachableError("the authority of the control plane's certificate is not known here: send it as caCert")
    return shown


def _checked(pem: bytes) -> bytes:
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnreachableError("caCert holds no certificate in PEM") from error
    return pem


@lru_cache(maxsize=8)
def _holds_authority(pem: bytes) -> bool:
    return any(certificate.issuer == certificate.subject for certificate in x509.load_pem_x509_certificates(pem))


@lru_cache(maxsize=8)
def _names(pem: bytes) -> frozenset[str]:
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return frozenset((*hosts, *map(str, names.get_values_for_type(x509.IPAddress))))


def _covered_by_wildcard(host: str, names: frozenset[str]) -> bool:
    return not _is_ip(host) and f"*.{host.partition('.')[2]}" in names


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
