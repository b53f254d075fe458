"""Digests of encoded resources, and of whole snapshots in time proportional to what changes in them.

In: bytes; (name, version) pairs. Out: 16-byte digests, the same on every machine and after every restart.
Never: a promise against somebody who chooses the bytes to collide: XXH3 is fast, not cryptographic.
"""

from collections.abc import Sequence

cimport cython
from border cimport utf8
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcmp, memcpy

from xxhash import xxh3_128_digest


cdef extern from "Python.h":
    PyObject** PySequence_Fast_ITEMS(object fast)


cdef extern from "digest.hpp" namespace "kumafast" nogil:
    cdef cppclass Digest:
        Digest()
        void add(const Digest& other)
        void subtract(const Digest& other)
        void write(unsigned char* out)
        @staticmethod
        Digest read(const unsigned char* data)

    const size_t kShortMax "kumafast::xxh3::kShortMax"
    Digest short_digest "kumafast::xxh3::short_digest"(const unsigned char* data, size_t size)


def digest(data, /):
    """XXH3-128 of any bytes-like object: 16 bytes, big-endian, as `xxhash.xxh3_128_digest`. O(bytes).

    Among n different inputs that nobody chose to collide, two are equal with probability under n² / 2**129: for a
    billion resources, 2e-21. A str is a TypeError: encode it first.

    >>> digest(b"an encoded resource").hex()
    '5d56f93584b055d8a97ef8c386554ab1'
    """
    if isinstance(data, str):
        raise TypeError("a digest is of bytes, not of str; encode it first")
    return xxh3_128_digest(data)


cdef const char* _utf8(object text, Py_ssize_t* size) except NULL:
    if not isinstance(text, str):
        raise TypeError(f"a name and a version must be str, not {type(text).__name__}")
    return utf8(text, size)


cdef int _element(object name, object version, Digest* element) except -1:
    """The digest of name, NUL, version: no two pairs make the same bytes, since neither holds a NUL."""
    cdef Py_ssize_t name_size = 0
    cdef Py_ssize_t version_size = 0
    cdef unsigned char joined[240]
    cdef const char* name_data = _utf8(name, &name_size)
    cdef const char* version_data = _utf8(version, &version_size)
    if <size_t>name_size < kShortMax and <size_t>version_size < kShortMax - <size_t>name_size:
        memcpy(joined, name_data, name_size)
        joined[name_size] = 0
        memcpy(joined + name_size + 1, version_data, version_size)
        element[0] = short_digest(joined, name_size + 1 + version_size)
        return 0
    whole = xxh3_128_digest(name_data[:name_size] + b"\0" + version_data[:version_size])
    element[0] = Digest.read(<const unsigned char*>PyBytes_AS_STRING(whole))
    return 0


@cython.final
cdef class SnapshotDigest:
    """An order-free digest of a snapshot's (name, version) pairs; mutable, O(1) for each change.

    It is the sum modulo 2**128 of each pair's XXH3-128 digest. Two different snapshots of n pairs that nobody chose to
    collide are equal with probability 2**-128; among s snapshots some two are with at most s² / 2**129. Somebody who
    may choose many names can build a collision (sums of digests are weaker than digests): use it to find what
    changed, never to prove who wrote it.

    It counts: a pair added twice is there twice. What is removed must have been added; the sum cannot know.
    `items` yields (name, version). A name or version with NUL or a lone surrogate: ValueError.

    >>> snapshot = SnapshotDigest([("listener", "1"), ("cluster", "1")])
    >>> snapshot.replace("cluster", "1", "2")
    >>> snapshot.value == SnapshotDigest([("cluster", "2"), ("listener", "1")]).value
    True
    """

    cdef Digest sum

    def __cinit__(self, items=(), /):
        for each in items:
            if not isinstance(each, tuple) or len(each) != 2:
                raise TypeError("each item must come as a tuple (name, version)")
            self.add(each[0], each[1])

    def add(self, name, version, /):
        """Count a pair in."""
        cdef Digest element
        _element(name, version, &element)
        self.sum.add(element)

    def remove(self, name, version, /):
        """Take a pair out that was added before."""
        cdef Digest element
        _element(name, version, &element)
        self.sum.subtract(element)

    def replace(self, name, old, new, /):
        """Take (name, old) out and count (name, new) in; if one of them is refused, neither is done."""
        cdef Digest before
        cdef Digest after
        _element(name, old, &before)
        _element(name, new, &after)
        self.sum.subtract(before)
        self.sum.add(after)

    def add_all(self, SnapshotDigest other not None, /):
        """Count in all that `other` has: a snapshot of layers is the sum of its layers."""
        self.sum.add(other.sum)

    def plus(self, SnapshotDigest other not None, /):
        """Another digest, of what this one has and what `other` has; both stay as they are."""
        cdef SnapshotDigest total = SnapshotDigest.__new__(SnapshotDigest)
        total.sum = self.sum
        total.sum.add(other.sum)
        return total

    def remove_all(self, SnapshotDigest other not None, /):
        """Take out all that `other` has."""
        self.sum.subtract(other.sum)

    @property
    def value(self):
        """16 bytes, big-endian; of nothing: 16 zero bytes."""
        cdef unsigned char data[16]
        self.sum.write(data)
        return PyBytes_FromStringAndSize(<char*>data, 16)

    def __repr__(self):
        return f"<SnapshotDigest {self.value.hex()}>"


cdef object _checked_digests(object digests):
    """`digests` as a list or tuple of bytes of length 16."""
    if isinstance(digests, (str, bytes)) or not isinstance(digests, Sequence):
        raise TypeError(f"digests must come as a sequence of bytes, not {type(digests).__name__}")
    cdef object checked = digests if type(digests) is list or type(digests) is tuple else list(digests)
    cdef Py_ssize_t count = len(checked)
    cdef PyObject** items = PySequence_Fast_ITEMS(checked)
    for at in range(count):
        if type(<object>items[at]) is not bytes:
            raise TypeError(f"a digest must be bytes, not {type(<object>items[at]).__name__}")
        if PyBytes_GET_SIZE(<object>items[at]) != 16:
            raise ValueError("a digest has 16 bytes")
    return checked


def changed_snapshots(before, after, /):
    """Ascending positions where two sequences of 16-byte digests differ. O(snapshots), none of their contents.

    Different lengths, or a digest of another length: ValueError.

    >>> old, new = SnapshotDigest([("a", "1")]).value, SnapshotDigest([("a", "2")]).value
    >>> changed_snapshots([old, old, old], [old, new, old])
    [1]
    """
    first = _checked_digests(before)
    second = _checked_digests(after)
    cdef Py_ssize_t count = len(first)
    cdef list changed = []
    if len(second) != count:
        raise ValueError(f"{count} digests before, {len(second)} after")
    # Only bytes are looked at from here on, so no foreign code can run and alter the sequences.
    cdef PyObject** old = PySequence_Fast_ITEMS(first)
    cdef PyObject** new = PySequence_Fast_ITEMS(second)
    for at in range(count):
        if old[at] == new[at]:
            continue
        if memcmp(PyBytes_AS_STRING(<object>old[at]), PyBytes_AS_STRING(<object>new[at]), 16) != 0:
            changed.append(at)
    return changed
