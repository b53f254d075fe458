"""Versions read some at a time are what protobuf reads at once; names forgotten are gone and no others."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kumafast._core import VersionReader, forget_names, join_texts

FIELD = 5
TEXT = st.text(max_size=8)


def read(data: bytes, step: int = 1000) -> tuple[dict[str, str], bytes]:
    reader = VersionReader(data, FIELD)
    pieces = 1
    while not reader.read(step):
        pieces += 1
    assert pieces <= len(data) // 2 + 1
    return reader.versions, bytes(reader.rest)


@given(st.dictionaries(TEXT, TEXT), st.lists(TEXT, max_size=4), TEXT, st.integers(1, 5))
def test_what_protobuf_wrote(versions: dict[str, str], names: list[str], nonce: str, step: int) -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(
        resource_names_subscribe=names, initial_resource_versions=versions, response_nonce=nonce
    )
    found, rest = read(message.SerializeToString(), step)
    assert found == versions
    message.ClearField("initial_resource_versions")
    assert rest == message.SerializeToString()


def field(number: int, content: bytes, kind: int = 2) -> bytes:
    return bytes((number << 3 | kind, len(content))) + content


CONTENTS = st.sampled_from([b"", b"a", b"b", b"\xff", b"\xed\xa0\x80", "ä".encode()])
# A key and a value, either of which may be absent, in either order.
ENTRIES = st.builds(
    lambda key, value, is_in_order: b"".join([key, value] if is_in_order else [value, key]),
    st.just(b"") | CONTENTS.map(lambda content: field(1, content)),
    st.just(b"") | CONTENTS.map(lambda content: field(2, content)),
    st.booleans(),
)
OTHERS = st.builds(field, st.integers(1, 9).filter(lambda number: number not in (1, 5, 7)), CONTENTS)
OF_OTHER_KINDS = st.sampled_from([b"\x28\x01", b"\x29" + bytes(8), b"\x2d" + bytes(4), b"\x08\x81\x01"])


@given(st.lists(ENTRIES.map(lambda entry: field(FIELD, entry)) | OTHERS | OF_OTHER_KINDS, max_size=6).map(b"".join))
def test_whatever_stands_in_it_is_read_as_protobuf_reads_it(data: bytes) -> None:
    """Halves of entries, names that come twice, fields of other kinds and of no meaning, text that is none."""
    try:
        expected = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    except DecodeError:
        with pytest.raises((DecodeError, ValueError)):
            discovery_pb2.DeltaDiscoveryRequest.FromString(read(data)[1])
        return
    versions, rest = read(data)
    assert versions == dict(expected.initial_resource_versions)
    expected.ClearField("initial_resource_versions")
    assert discovery_pb2.DeltaDiscoveryRequest.FromString(rest) == expected


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_told(data: bytes) -> None:
    try:
        versions, rest = read(field(FIELD, data))
    except ValueError:
        return
    assert rest == b""
    assert discovery_pb2.DeltaDiscoveryRequest.FromString(field(FIELD, data)).initial_resource_versions == versions


IRREGULAR = {
    "a key without its length": b"\x2a",
    "an entry cut off": b"\x2a\x05\x0a",
    "a text cut off": b"\x2a\x02\x0a\x05",
    "a group in an entry": b"\x2a\x02\x0b\x0c",
    "a group": b"\x0b\x0c",
    "two keys": field(FIELD, field(1, b"a") + field(1, b"b")),
    "two values": field(FIELD, field(2, b"a") + field(2, b"b")),
    "something else": field(FIELD, field(1, b"a") + field(3, b"b")),
    "a number for a key": field(FIELD, b"\x08\x01"),
}


@pytest.mark.parametrize("data", IRREGULAR.values(), ids=IRREGULAR)
def test_what_is_not_well_formed_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="not well formed"):
        read(data)


@given(st.lists(TEXT), st.integers(1, 2000))
def test_texts_are_joined_as_protobuf_would(texts: list[str], number: int) -> None:
    if number == 6:
        assert discovery_pb2.DeltaDiscoveryResponse.FromString(join_texts(6, texts)).removed_resources == texts
    assert len(join_texts(number, texts)) == sum(
        len(join_texts(number, [])) + len(text.encode()) + (2 if number < 16 else 3) for text in texts
    )


@given(st.dictionaries(TEXT, TEXT), st.lists(TEXT))
def test_names_are_forgotten_as_one_by_one(held: dict[str, str], names: list[str]) -> None:
    expected = {name: version for name, version in held.items() if name not in names}
    forget_names(held, names)
    assert held == expected
