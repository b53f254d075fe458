"""One question of the DNS over UDP, with as much of RFC 1035 as an address needs.

In: a port, a name. Out: the addresses that are answered, or the code of a refusal. Never: another type of record.
"""

from __future__ import annotations

import secrets
import socket
import struct

NXDOMAIN = 3


def lookup(port: int, name: str, *, timeout_s: float = 2.0) -> tuple[int, list[str]]:
    """The response code and the IPv4 addresses of a name. `TimeoutError` where nobody answers."""
    number = secrets.randbits(16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        # Connected, so that a port where nobody listens is an error at once.
        client.connect(("127.0.0.1", port))
        client.send(struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
        answer = client.recv(4096)
    echoed, flags, _, count, _, _ = struct.unpack("!HHHHHH", answer[:12])
    assert echoed == number
    addresses = []
    at = 12 + len(question)
    for _ in range(count):
        at = _after_name(answer, at)
        kind, _, _, length = struct.unpack("!HHIH", answer[at : at + 10])
        at += 10
        if kind == 1:
            addresses.append(socket.inet_ntoa(answer[at : at + length]))
        at += length
    return flags & 0xF, addresses


def _after_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += 1 + message[at]
    return at + 1
