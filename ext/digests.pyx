# distutils: language = c++
"""Digests of encoded resources and of whole snapshots."""

from collections.abc import Sequence

from xxhash import xxh3_128_digest

cdef object _MODULUS = 1 << 128


def digest(data, /):
    if isinstance(data, str):
        raise TypeError("digest takes bytes, not str; encode it first")
    return xxh3_128_digest(data)


cdef object _element(object name, object version):
    for text in (name, version):
        if not isinstance(text, str):
            raise TypeError(f"a name and a version must be str, not {type(text).__name__}")
        if "\0" in text:
            raise ValueError("a name or a version must not contain NUL")
    return int.from_bytes(xxh3_128_digest(name.encode() + b"\0" + version.encode()), "big")


cdef class SnapshotDigest:
    cdef object total

    def __cinit__(self, items=(), /):
        self.total = 0
        for name, version in items:
            self.add(name, version)

    def add(self, name, version, /):
        self.total = (self.total + _element(name, version)) % _MODULUS

    def remove(self, name, version, /):
        self.total = (self.total - _element(name, version)) % _MODULUS

    def replace(self, name, old, new, /):
        self.total = (self.total - _element(name, old) + _element(name, new)) % _MODULUS

    @property
    def value(self):
        return self.total.to_bytes(16, "big")


def changed_snapshots(before, after, /):
    for side in (before, after):
        if not isinstance(side, Sequence):
            raise TypeError(f"digests must come as a sequence, not {type(side).__name__}")
        for each in side:
            if not isinstance(each, bytes):
                raise TypeError(f"a digest must be bytes, not {type(each).__name__}")
            if len(each) != 16:
                raise ValueError("a digest has 16 bytes")
    if len(before) != len(after):
        raise ValueError("before and after differ in length")
    return [i for i, (old, new) in enumerate(zip(before, after)) if old != new]
