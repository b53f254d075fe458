"""An external service: where dataplanes find something that is no part of the mesh, under tags as if it were.

In: documents in Kuma's 2.14 form. Out: `ExternalService`, frozen, and the rules that it breaks. Never: a look-up of its
host, or what clients make of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.data_source import DataSource, check_data_source
from kumafast.resources.fields import Flag, FrozenMap, Tags, Text
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.tags import PROTOCOL_TAG, SERVICE_TAG
from kumafast.resources.validation import check_port, check_protocol, check_tags, is_domain, is_ip, key_of

# As Go splits it: an IPv6 address stands in brackets.
_HOST_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*)):([^\[\]:]*)")
_NUMBER = re.compile(r"[0-9]{1,20}")
_NUMBER_MAX = 2**32 - 1


class ExternalTls(Frozen):
    """How the service is connected to by TLS. Without `ca_cert` any certificate of its is taken."""

    enabled: Flag = False
    ca_cert: DataSource | None = None
    client_cert: DataSource | None = None
    client_key: DataSource | None = None
    allow_renegotiation: Flag | None = None
    server_name: Text | None = None
    """What the server is called and its certificate must name; None is the host of the address."""
    skip_hostname_verification: Flag = False


class ExternalNetworking(Frozen):
    """Where the service is: `host:port`."""

    address: Text = ""
    tls: ExternalTls | None = None
    disable_host_dns_entry: Flag = Field(default=False, alias="disableHostDNSEntry")
    """Whether the host itself is no name that leads here; the service's name is one in any case."""


class ExternalService(Resource):
    """An instance of a service outside of the mesh.

    >>> pay = ExternalService(name="p", networking={"address": "example.com:443"}, tags={"kuma.io/service": "pay"})
    >>> pay.host, pay.port, pay.protocol
    ('example.com', 443, 'tcp')
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="ExternalService",
        scope=Scope.MESH,
        path="external-services",
        singular="External Service",
        plural="External Services",
        is_in_federation=True,
    )

    networking: ExternalNetworking | None = None
    tags: Tags = FrozenMap()

    @property
    def host(self) -> str:
        """An IP address or a name; empty where the address is none."""
        return self._split()[0]

    @property
    def port(self) -> int:
        """The port; 0 where the address has none."""
        text = self._split()[1]
        return int(text) if _NUMBER.fullmatch(text) else 0

    @property
    def names_host(self) -> bool:
        """Whether its host is a name, or an address, that transparent proxies lead here."""
        return bool(self.host) and self.networking is not None and not self.networking.disable_host_dns_entry

    @property
    def protocol(self) -> str:
        """The application protocol, `tcp` where none is given."""
        return self.tags.get(PROTOCOL_TAG) or "tcp"

    @property
    def tls(self) -> ExternalTls | None:
        """How TLS is used; None where it is not."""
        tls = None if self.networking is None else self.networking.tls
        return tls if tls is not None and tls.enabled else None

    def _split(self) -> tuple[str, str]:
        found = _HOST_PORT.fullmatch("" if self.networking is None else self.networking.address)
        return ("", "") if found is None else (found[1] or found[2] or "", found[3])

    def violations(self) -> Iterator[Violation]:
        """Every rule of external services that this one breaks, in the order of Kuma's checks."""
        if self.networking is None:
            yield Violation("networking", "should have networking")
        else:
            yield from self._check_address("networking.address", self.networking.address)
            if self.networking.tls is not None:
                yield from _check_tls("networking.tls", self.networking.tls)
        yield from check_protocol("tags", self.tags)
        yield from check_tags("tags", self.tags, requires_service=True)
        service = self.tags.get(SERVICE_TAG)
        if service and service == self.host:
            yield Violation(key_of("tags", SERVICE_TAG), "cannot be the same as networking.address")

    def _check_address(self, path: str, address: str) -> Iterator[Violation]:
        if not address:
            yield Violation(path, "address can't be empty")
            return
        host, port = self._split()
        if not _HOST_PORT.fullmatch(address):
            yield Violation(path, "unable to parse address")
        if not is_ip(host) and not is_domain(host):
            yield Violation(path, "address has to be a valid IP address or a domain name")
        is_number = _NUMBER.fullmatch(port) is not None and int(port) <= _NUMBER_MAX
        if not is_number:
            yield Violation(path, "unable to parse port in address")
        yield from check_port(path, int(port) if is_number else 0)

    def remarks(self) -> Iterator[str]:
        """That without an authority TLS keeps nobody from posing as the service."""
        if self.tls is not None and self.tls.ca_cert is None:
            yield "networking.tls: without caCert any certificate is taken, so anybody can pose as this service"


def _check_tls(path: str, tls: ExternalTls) -> Iterator[Violation]:
    if tls.server_name == "":
        yield Violation(f"{path}.serverName", "cannot be empty")
    yield from check_data_source(f"{path}.caCert", tls.ca_cert)
    yield from check_data_source(f"{path}.clientCert", tls.client_cert)
    yield from check_data_source(f"{path}.clientKey", tls.client_key)
