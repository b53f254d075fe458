"""A listener from its name, its address and the bytes of everything else, which many listeners have in common.

In: texts, a port, an encoded `Listener` without name and address. Out: the resource, equal byte for byte to what
protobuf writes for all of it. Never: what the listener does; the bytes are not looked into.
"""

from __future__ import annotations

from kumafast.snapshot import framing
from kumafast.snapshot.resource import LISTENER, XdsResource

# Listener { name = 1; address = 2 }, Address { socket_address = 1 }, SocketAddress { address = 2; port_value = 3 }:
# written by number, as protobuf does. All other fields of a listener have higher numbers.
_NAME, _ADDRESS = 1, 2
_SOCKET_ADDRESS = 1
_HOST = 2
# One of several forms of a port, so it is written even where it is 0.
_PORT_KEY = b"\x18"


def placed_listener(name: str, address: str, port: int, rest: bytes) -> XdsResource:
    """The listener of that name on a TCP port of an IP address.

    >>> placed_listener("a", "10.0.0.1", 80, b"").body
    b'\\n\\x01a\\x12\\x0e\\n\\x0c\\x12\\x0810.0.0.1\\x18P'
    """
    place = framing.text(_HOST, address) + _PORT_KEY + framing.varint(port)
    place = framing.opening(_SOCKET_ADDRESS, len(place)) + place
    return XdsResource(LISTENER, name, framing.text(_NAME, name) + framing.opening(_ADDRESS, len(place)) + place + rest)
