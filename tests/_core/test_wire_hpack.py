"""HPACK against the `hpack` package, and rule by rule of RFC 7541 where that package would not send such a thing."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tests._core.http2_bytes import COMPRESSION_ERROR, END_HEADERS, HEADERS, REQUEST_HEADERS, Peer, frame

from kumafast._core import END, REQUEST

_TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=40)
_VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=200)
_CHOSEN = st.sampled_from(["authorization", "user-agent", "grpc-encoding"])
_REQUESTS = st.lists(
    st.tuples(
        st.lists(st.tuples(_TOKEN.map(lambda name: f"x-{name}"), _VALUE), max_size=12),
        st.dictionaries(_CHOSEN, _VALUE),
        st.booleans(),
        st.sampled_from([None, None, None, 0, 60, 300, 4096]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(_REQUESTS)
def test_any_headers_come_out_as_they_went_in(
    requests: list[tuple[list[tuple[str, str]], dict[str, str], bool, int | None]],
) -> None:
    """Several requests on one connection: the tables of both sides stay alike, whatever their size is set to."""
    peer = Peer()
    encoder = Encoder()
    for at, (others, chosen, is_huffman, table_size) in enumerate(requests):
        if table_size is not None:
            encoder.header_table_size = table_size
        headers = [*REQUEST_HEADERS[:6], *others, *chosen.items(), *others]
        block = encoder.encode([(name, value.encode("latin-1")) for name, value in headers], huffman=is_huffman)
        (event,) = peer.send(frame(HEADERS, END_HEADERS, 1 + 2 * at, block))
        assert event[0] == REQUEST
        assert event[3] == {**dict(REQUEST_HEADERS[3:6]), **chosen}


def blocks(*encoded: bytes) -> Peer:
    """A connection that is sent these blocks as requests, each with the pseudo-headers and a content type before."""
    peer = Peer()
    needed = b"\x83\x86\x84\x0f\x10\x10application/grpc"
    for at, block in enumerate(encoded):
        # A size update must stay in front.
        split = 0 if not block or block[0] & 0xE0 != 0x20 else 3 if block[0] == 0x3F else 1
        peer.send(frame(HEADERS, END_HEADERS, 1 + 2 * at, block[:split] + needed + block[split:]))
    return peer


def agent(encoded: bytes) -> bytes:
    """A literal user-agent, added to the table, with this encoded value."""
    return b"\x7a" + encoded


def test_examples_of_the_rfc() -> None:
    """C.4: Huffman-coded values, one of them twice by the table."""
    www = bytes.fromhex("8cf1e3c2e5f23a6ba0ab90f4ff")
    peer = blocks(agent(www), b"\xbe", agent(b"\x03abc") + b"\xbf")
    assert [event[3]["user-agent"] for event in peer.events] == [
        "www.example.com",
        "www.example.com",
        "www.example.com",
    ]


def test_literals_without_a_table_are_not_added() -> None:
    for first in (b"\x0f\x2b", b"\x1f\x2b"):
        peer = blocks(first + b"\x01x")
        assert peer.events[-1][3]["user-agent"] == "x"
        assert blocks(first + b"\x01x", b"\xbe").events[-1][:3] == (END, 0, COMPRESSION_ERROR)


def test_entry_larger_than_the_table_empties_it() -> None:
    """4.4: that is no error."""
    value = b"x" * 4096
    length = b"\x7f" + bytes((0x80 | ((len(value) - 127) & 0x7F), (len(value) - 127) >> 7))
    peer = blocks(agent(b"\x01a"), agent(length + value), b"\xbe")
    assert [event[0] for event in peer.events] == [REQUEST, REQUEST, END]
    assert peer.events[1][3]["user-agent"] == value.decode()


def test_name_of_an_entry_that_is_evicted_for_its_own_sake() -> None:
    """4.4: the name is read before the entry goes to make room."""
    value = b"y" * 4040
    length = b"\x7f" + bytes((0x80 | ((len(value) - 127) & 0x7F), (len(value) - 127) >> 7))
    peer = blocks(agent(b"\x01a"), b"\x7e" + length + value, b"\xbe")
    assert [event[3]["user-agent"] for event in peer.events] == ["a", value.decode(), value.decode()]


def test_size_updates() -> None:
    """4.2, 6.3: an update evicts; it stands at the beginning, and asks for no more than was allowed."""
    peer = blocks(agent(b"\x01a"), b"\x20", b"\xbe")
    assert [event[0] for event in peer.events] == [REQUEST, REQUEST, END]
    assert blocks(b"\x3f\xe1\x1f").events[-1][0] == REQUEST, "4096 is allowed"
    for bad in (b"\x3f\xe2\x1f", b"\x82\x20"):
        assert blocks(b"").send(frame(HEADERS, END_HEADERS, 3, bad))[-1][:3] == (END, 0, COMPRESSION_ERROR)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "6.1: index 0"),
        (b"\xbe", "2.3.3: an index beyond the table"),
        (b"\xff\xff\xff\xff\xff\xff\xff", "5.1: an integer too large"),
        (b"\xff", "5.1: an integer cut off"),
        (b"\x7a", "5.2: no string at all"),
        (b"\x7a\x05abc", "5.2: a string cut off"),
        (b"\x40", "6.2: no name at all"),
        (b"\x7a\x82\x1f\xff", "5.2: padding of a whole octet"),
        (b"\x7a\x81\x18", "5.2: padding of zeros"),
        (b"\x7a\x84\xff\xff\xff\xff", "5.2: the end of the string within it"),
        (b"\x7a\x81\xff", "5.2: padding alone, of eight bits"),
    ],
)
def test_blocks_that_cannot_be_decoded(block: bytes, why: str) -> None:
    peer = blocks(b"")
    assert peer.send(frame(HEADERS, END_HEADERS, 3, block))[-1][:3] == (END, 0, COMPRESSION_ERROR), why


def test_every_octet_by_huffman() -> None:
    encoder = Encoder()
    for octet in range(0x21, 0x100):
        value = bytes((octet, 0x61, octet))
        block = encoder.encode([(b"authorization", value)], huffman=True)
        (event,) = blocks(block).events
        assert event[3]["authorization"].encode("latin-1") == value
