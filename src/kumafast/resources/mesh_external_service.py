"""A service outside of the mesh, by a name and a port of its own: where it is, and how it is spoken to.

In: documents in Kuma's 2.14 form. Out: `MeshExternalService`, frozen, and the rules that it breaks. Never: a look-up of
its addresses, or the content of a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.fields import Base64, Flag, Loose, Text, Whole
from kumafast.resources.mesh_service import check_name_length
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.validation import is_domain, is_ip

HOSTNAME_GENERATOR = "HostnameGenerator"
EXACT = "Exact"

SKIP_NAMES = "SkipSAN"
SKIP_AUTHORITY = "SkipCA"
SKIP_ALL = "SkipAll"
SECURED = "Secured"

_PROTOCOLS = ("tcp", "grpc", "http", "http2")
_MODES = (SKIP_NAMES, SKIP_AUTHORITY, SKIP_ALL, SECURED)
_NAME_MATCHES = ("Prefix", EXACT)
TLS_VERSIONS = ("TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13")
"""The versions of TLS by their names, ascending; the first is whatever Envoy takes."""
_PORT_MAX = 65535
_PRIORITY_MAX = 128


class Match(Frozen):
    """By which port and in which protocol workloads ask for it."""

    type: Text = ""
    port: Whole = 0
    declared_protocol: Text = Field(default="", alias="protocol")

    @property
    def protocol(self) -> str:
        """The application protocol, `tcp` where none is given."""
        return self.declared_protocol or "tcp"


class Extension(Frozen):
    """What another program makes of it; kumafast knows none."""

    type: Text = ""
    config: Loose | None = None


class ServiceEndpoint(Frozen):
    """Where it is: an IP address or a name, and a port. Those of a lower `priority` are used while they are well."""

    address: Text = ""
    port: Whole = 0
    priority: Whole = 0


class Version(Frozen):
    """Which versions of TLS may be spoken."""

    min: Text = ""
    max: Text = ""


class NameMatch(Frozen):
    """A name that the certificate of the service must have."""

    type: Text = ""
    value: Text = ""

    @property
    def is_exact(self) -> bool:
        """Whether the whole name is to be so, and not only its beginning."""
        return self.type != "Prefix"


class CertificateSource(Frozen):
    """Where a certificate or key is: in a secret of the mesh, or here, in base64 (`inline`) or as text."""

    secret: Text = ""
    inline: Base64 = Field(default="", repr=False)
    inline_string: Text = Field(default="", repr=False)


class Verification(Frozen):
    """Whom the sidecar takes for the service, and what it shows of itself."""

    mode: Text = ""
    server_name: Text | None = None
    subject_alt_names: tuple[NameMatch, ...] = ()
    ca_cert: CertificateSource | None = None
    client_cert: CertificateSource | None = None
    client_key: CertificateSource | None = None


class Tls(Frozen):
    """How the sidecar speaks TLS to the service."""

    enabled: Flag = False
    version: Version | None = None
    allow_renegotiation: Flag = False
    verification: Verification | None = None


class MeshExternalServiceSpec(Frozen):
    """What a user says of a service outside of the mesh."""

    match: Match = Match()
    extension: Extension | None = None
    endpoints: tuple[ServiceEndpoint, ...] = ()
    tls: Tls | None = None


class MeshExternalService(Resource):
    """A service outside of one mesh, for its workloads.

    >>> spec = {"match": {"port": 443}, "endpoints": [{"address": "example.com", "port": 443}]}
    >>> MeshExternalService(name="example", mesh="default", spec=spec).spec.match.protocol
    'tcp'
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshExternalService",
        scope=Scope.MESH,
        path="meshexternalservices",
        singular="Mesh External Service",
        plural="Mesh External Services",
        short_name="extsvc",
        is_in_federation=True,
        has_status=True,
    )

    spec: MeshExternalServiceSpec = MeshExternalServiceSpec()

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets of the mesh that its TLS takes."""
        verification = None if self.spec.tls is None else self.spec.tls.verification
        if verification is None:
            return frozenset()
        sources = (verification.ca_cert, verification.client_cert, verification.client_key)
        return frozenset(source.secret for source in sources if source is not None and source.secret)

    def violations(self) -> Iterator[Violation]:
        """Every rule of such services that this one breaks, in the order of Kuma's checks."""
        yield from check_name_length(self.name)
        yield from _check_match("spec.match", self.spec.match)
        if self.spec.extension is None:
            yield from _check_endpoints("spec.endpoints", self.spec.endpoints)
            if self.spec.tls is not None:
                yield from _check_tls("spec.tls", self.spec.tls)
        elif not self.spec.extension.type:
            yield Violation("spec.extension.type", "must not be empty")

    def remarks(self) -> Iterator[str]:
        """That nothing comes of an extension."""
        if self.spec.extension is not None:
            yield "spec.extension: extensions are not known here, so that the service has no endpoints"


def _check_match(path: str, match: Match) -> Iterator[Violation]:
    if match.type not in ("", HOSTNAME_GENERATOR):
        message = f"unrecognized type '{match.type}' - only '{HOSTNAME_GENERATOR}' is supported"
        yield Violation(f"{path}.type", message)
    yield from _check_port(f"{path}.port", match.port)
    yield from _check_one_of(path, "protocol", match.protocol, _PROTOCOLS)


def _check_endpoints(path: str, endpoints: Iterable[ServiceEndpoint]) -> Iterator[Violation]:
    for i, endpoint in enumerate(endpoints):
        if is_ip(endpoint.address) or is_domain(endpoint.address):
            yield from _check_port(f"{path}[{i}].port", endpoint.port)
        else:
            yield Violation(f"{path}[{i}].address", "address has to be a valid IP or hostname")
        if not 0 <= endpoint.priority <= _PRIORITY_MAX:
            yield Violation(f"{path}[{i}].priority", f"must be in the range [0, {_PRIORITY_MAX}]")


def _check_tls(path: str, tls: Tls) -> Iterator[Violation]:
    if tls.version is not None:
        yield from _check_version(f"{path}.version", tls.version)
    if tls.verification is not None:
        yield from _check_verification(f"{path}.verification", tls.verification)


def _check_version(path: str, version: Version) -> Iterator[Violation]:
    given = [(field, value) for field, value in (("min", version.min), ("max", version.max)) if value]
    wrong = [field for field, value in given if value not in TLS_VERSIONS]
    for field in wrong:
        yield _one_of(path, field, TLS_VERSIONS)
    if len(given) == 2 and not wrong and TLS_VERSIONS.index(version.min) > TLS_VERSIONS.index(version.max):
        yield Violation(f"{path}.min", "min version must be lower than max")


def _check_verification(path: str, verification: Verification) -> Iterator[Violation]:
    name = verification.server_name
    if name is not None and not is_domain(name):
        yield Violation(f"{path}.serverName", "must be a valid DNS name")
    yield from _check_one_of(path, "mode", verification.mode or SECURED, _MODES)
    for i, match in enumerate(verification.subject_alt_names):
        yield from _check_one_of(f"{path}.subjectAltNames[{i}]", "type", match.type or EXACT, _NAME_MATCHES)
    if verification.client_cert is not None and verification.client_key is None:
        yield Violation(f"{path}.clientKey", "must be defined when clientCert is defined")
    if verification.client_cert is None and verification.client_key is not None:
        yield Violation(f"{path}.clientCert", "must be defined when clientKey is defined")


def _check_port(path: str, port: int) -> Iterator[Violation]:
    if not 1 <= port <= _PORT_MAX:
        yield Violation(path, "port must be a valid (1-65535)")


def _check_one_of(path: str, field: str, value: str, values: Sequence[str]) -> Iterator[Violation]:
    if value not in values:
        yield _one_of(path, field, values)


def _one_of(path: str, field: str, values: Sequence[str]) -> Violation:
    return Violation(f"{path}.{field}", f"{json.dumps(field)} must be one of {json.dumps(list(values))}")
