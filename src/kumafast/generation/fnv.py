"""The digest that Kuma names servers by.

In: bytes. Out: a number of 64 bits. Never: for anything that somebody could want to collide; it is no secret.
"""

from __future__ import annotations

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = 2**64 - 1


def fnv1a(data: bytes) -> int:
    """FNV-1a of 64 bits, for short texts: O(bytes), in plain Python.

    >>> f"{fnv1a(b'a'):016x}"
    'af63dc4c8601ec8c'
    """
    digest = _OFFSET
    for byte in data:
        digest = ((digest ^ byte) * _PRIME) & _MASK
    return digest
