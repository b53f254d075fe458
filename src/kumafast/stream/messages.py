"""What the protocol's state machine is told and what it answers, free of gRPC and protobuf.

In: what a client said, or what it must be sent. Out: `Request` and `Response`, one form for both variants.
Never: bytes; `wire.py` reads and writes those.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from kumafast.snapshot.resource import XdsResource

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Variant(enum.Enum):
    """The two forms of xDS: the state of the world, and what has changed."""

    SOTW = "sotw"
    DELTA = "delta"


class ProtocolError(Exception):
    """The client broke the protocol so that its stream cannot go on; other streams do."""


class ExhaustedError(Exception):
    """The server has too much to do to take this in: the client may try again."""


class Request(NamedTuple):
    """A `DiscoveryRequest`, with `names` and `version`, or a `DeltaDiscoveryRequest`, with the three after them."""

    type_url: str = ""
    names: Sequence[str] = ()
    version: str = ""
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = _NOTHING
    nonce: str = ""
    error: str | None = None
    """The message of `error_detail`; None where there is none. Its presence, not its text, makes a NACK (rule 10)."""


class Response(NamedTuple):
    """What goes out for one type. `removed` is empty in SotW, which has no such thing."""

    type_url: str
    version: str
    nonce: str
    resources: Sequence[XdsResource]
    removed: Sequence[str] = ()


class Acknowledged(NamedTuple):
    """The client took the response that was in flight."""

    type_url: str
    version: str


class Rejected(NamedTuple):
    """The client refused the response that was in flight, for the reason in `message`."""

    type_url: str
    version: str
    message: str


class Sent(NamedTuple):
    """A response of `size` bytes goes out."""

    type_url: str
    version: str
    size: int


Event = Acknowledged | Rejected
