"""The bytes that stand before a resource's body in a response: protobuf's framing, written by hand.

In: field numbers, lengths, texts. Out: bytes that protobuf's own library would read back as the same message.
Never: the body itself; it is appended by whoever joins a response, so that it is held in memory once.
"""

from __future__ import annotations

from functools import lru_cache

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """A non-negative integer in base 128, least significant group first."""
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


@lru_cache(4096)
def opening(number: int, length: int) -> bytes:
    """What precedes `length` bytes of a field that is a text, bytes or a message."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def text(number: int, value: str) -> bytes:
    """A whole field that holds a text; nothing for an empty one, as protobuf leaves defaults out."""
    if not value:
        return b""
    encoded = value.encode("utf-8")
    return opening(number, len(encoded)) + encoded


def number(field: int, value: int) -> bytes:
    """A whole field that holds a non-negative integer; nothing for 0, as protobuf leaves defaults out."""
    return varint(field << 3) + varint(value) if value else b""


@lru_cache(4096)
def any_head(type_url: str, length: int) -> bytes:
    """An `Any` up to its value, which is the `length` bytes of body that must follow."""
    # Any { type_url = 1; value = 2 }, with the value last so that the body closes every message around it.
    return text(1, type_url) + (opening(2, length) if length else b"")


def sotw_head(type_url: str, length: int) -> bytes:
    """`DiscoveryResponse.resources` (field 2, an `Any`) up to the body of `length` bytes."""
    head = any_head(type_url, length)
    return opening(2, len(head) + length) + head


def delta_head(type_url: str, name: str, version: str, length: int) -> bytes:
    """`DeltaDiscoveryResponse.resources` (field 2, a `Resource`) up to the body of `length` bytes."""
    # Resource { version = 1; name = 3; resource = 2 }: the order of fields is free, and the body has to come last.
    head = any_head(type_url, length)
    resource = text(1, version) + text(3, name) + opening(2, len(head) + length) + head
    return opening(2, len(resource) + length) + resource
