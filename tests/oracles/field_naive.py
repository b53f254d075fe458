"""A field of a protobuf message cut out of it, the long way."""

from __future__ import annotations

FIELDS_SEARCHED_MAX = 4


def cut_field(data: bytes, number: int) -> tuple[bytes | None, bytes]:
    position = 0
    for _ in range(FIELDS_SEARCHED_MAX):
        start = position
        key, position = varint(data, position)
        if key is None or key & 7 != 2:
            return None, data
        length, position = varint(data, position)
        if length is None or position + length > len(data):
            return None, data
        content = data[position : position + length]
        position += length
        if key >> 3 == number:
            return content, data[:start] + data[position:]
    return None, data


def varint(data: bytes, position: int) -> tuple[int | None, int]:
    value = 0
    for place in range(10):
        if position + place == len(data):
            return None, position
        byte = data[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & (1 << 64) - 1, position + place + 1
    return None, position
