"""Envoy's small messages that every larger one is made of: durations, addresses, metadata, packed extensions.

In: plain values. Out: protobuf messages. Never: what they mean to a mesh.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from kumafast.generation.proxy import Tags
from kumafast.memo import remembered

# Those of defaults and of policies, over and over.
_DURATIONS_MAX = 1_024


@remembered(_DURATIONS_MAX)
def duration(value: timedelta) -> Duration:
    """A duration, exact to the microsecond. One message for all that ask for the same: it is not to be changed."""
    return Duration(seconds=value.days * 86_400 + value.seconds, nanos=value.microseconds * 1_000)


def socket_address(address: str, port: int) -> address_pb2.Address:
    """An IP address and a TCP port."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


def pipe_address(path: str, *, mode: int = 0) -> address_pb2.Address:
    """A unix socket; `mode` counts where Envoy creates it."""
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path, mode=mode))


def header(key: str, value: str, *, is_appended: bool) -> base_pb2.HeaderValueOption:
    """A header to add: beside one of the same name, or in its place."""
    option = base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=key, value=value))
    option.append_action = option.APPEND_IF_EXISTS_OR_ADD if is_appended else option.OVERWRITE_IF_EXISTS_OR_ADD
    return option


def fill(message: Message, **values: int | None) -> None:
    """Set numbers of a message that it tells from none (UInt32Value); None leaves what is there."""
    for name, value in values.items():
        if value is not None:
            getattr(message, name).value = value


def fraction(percentage: float) -> percent_pb2.FractionalPercent:
    """A percentage as exact as it was written, to a ten thousandth of a percent."""
    found = percent_pb2.FractionalPercent
    for factor, denominator in ((1, found.HUNDRED), (100, found.TEN_THOUSAND)):
        if float(percentage * factor).is_integer():
            return found(numerator=int(percentage * factor), denominator=denominator)
    return found(numerator=round(percentage * 10_000), denominator=found.MILLION)


def packed(message: Message) -> PackedMessage:
    """A message within an Any. Deterministic, as the whole is compared by its bytes."""
    wrapped = PackedMessage()
    pack(wrapped, message)
    return wrapped


def pack(into: PackedMessage, message: Message) -> None:
    """Put a message within an Any that is there, as `packed` does."""
    # What `Any.Pack` does, but for the name, which that puts together each time.
    into.type_url = _type_url(message.DESCRIPTOR)
    into.value = message.SerializeToString(deterministic=True)


@cache
def _type_url(kind: Descriptor) -> str:
    return f"type.googleapis.com/{kind.full_name}"


def metadata(pairs_by_namespace: Mapping[str, Tags]) -> base_pb2.Metadata:
    """Metadata with a struct of texts for each namespace; a namespace without pairs is left out."""
    return base_pb2.Metadata(
        filter_metadata={
            namespace: Struct(fields={key: Value(string_value=value) for key, value in pairs})
            for namespace, pairs in pairs_by_namespace.items()
            if pairs
        }
    )
