"""An Envoy resource as bytes: encoded once, named, versioned by content.

In: a type URL, a name, the serialised message. Out: `XdsResource`, and the framing of it in a response, made once.
Never: parsing of those bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NewType

from kumafast._core import digest
from kumafast.snapshot import framing

TypeUrl = NewType("TypeUrl", str)
Version = NewType("Version", str)

_PREFIX = "type.googleapis.com/envoy."
CLUSTER = TypeUrl(_PREFIX + "config.cluster.v3.Cluster")
ENDPOINT = TypeUrl(_PREFIX + "config.endpoint.v3.ClusterLoadAssignment")
LB_ENDPOINT = TypeUrl(_PREFIX + "config.endpoint.v3.LbEndpoint")
LISTENER = TypeUrl(_PREFIX + "config.listener.v3.Listener")
ROUTE = TypeUrl(_PREFIX + "config.route.v3.RouteConfiguration")
SCOPED_ROUTE = TypeUrl(_PREFIX + "config.route.v3.ScopedRouteConfiguration")
VIRTUAL_HOST = TypeUrl(_PREFIX + "config.route.v3.VirtualHost")
SECRET = TypeUrl(_PREFIX + "extensions.transport_sockets.tls.v3.Secret")
RUNTIME = TypeUrl(_PREFIX + "service.runtime.v3.Runtime")
EXTENSION = TypeUrl(_PREFIX + "config.core.v3.TypedExtensionConfig")


class XdsResource:
    """What an Envoy receives: `body` is the serialised message, `version` the XXH3-128 digest of it in hexadecimal.

    Equal content has an equal version, on every instance and after every restart. Immutable; compared by content.
    """

    __slots__ = ("_delta_head", "_sotw_head", "body", "name", "type_url", "version")

    def __init__(self, type_url: str, name: str, body: bytes, *, version: str | None = None) -> None:
        self.type_url = TypeUrl(type_url)
        self.name = name
        self.body = body
        # A secret's version may say what it is rather than what its bytes are, so a caller can give one.
        self.version = Version(digest(body).hex() if version is None else version)
        self._sotw_head: bytes | None = None
        self._delta_head: bytes | None = None

    @property
    def sotw_head(self) -> bytes:
        """What stands before `body` as one of a `DiscoveryResponse`; made when first asked for."""
        if self._sotw_head is None:
            self._sotw_head = framing.sotw_head(self.type_url, len(self.body))
        return self._sotw_head

    @property
    def delta_head(self) -> bytes:
        """What stands before `body` as one of a `DeltaDiscoveryResponse`; made when first asked for."""
        if self._delta_head is None:
            self._delta_head = framing.delta_head(self.type_url, self.name, self.version, len(self.body))
        return self._delta_head

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, XdsResource):
            return NotImplemented
        return (self.type_url, self.name, self.version) == (other.type_url, other.name, other.version)

    def __hash__(self) -> int:
        return hash((self.type_url, self.name, self.version))

    def __repr__(self) -> str:
        return (
            f"XdsResource({self.type_url.rpartition('.')[2]} {self.name!r} {self.version[:8]} {len(self.body)} bytes)"
        )


class LateResource(XdsResource):
    """A resource whose bytes are made when somebody is sent it for the first time, and whose version is known before.

    For secrets: what a client holds already, by its version, is not made anew.
    """

    __slots__ = ("_body", "_make")

    def __init__(self, type_url: str, name: str, make: Callable[[], bytes], *, version: str) -> None:
        self._make = make
        self._body: bytes | None = None
        super().__init__(type_url, name, b"", version=version)

    @property
    def body(self) -> bytes:
        """The serialised message."""
        return self.make()

    @body.setter
    def body(self, _: bytes) -> None:
        # What the base sets before there is anything.
        pass

    def make(self) -> bytes:
        """Make the message where nobody has been sent it yet."""
        if self._body is None:
            self._body = self._make()
        return self._body

    def __repr__(self) -> str:
        return f"LateResource({self.type_url.rpartition('.')[2]} {self.name!r} {self.version[:8]})"
