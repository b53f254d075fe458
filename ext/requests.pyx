# cython: freethreading_compatible = True
"""Discovery requests as octets: what is too much of one, and its node set apart, which is 61 kB in some clients.

In: the octets of a message. Out: a judgement in words; a field's content, and the message without it. Never: parsing;
what is not well formed passes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from wire cimport Field, Octets, find_field


cdef extern from "limits.hpp" namespace "kumafast::limits":
    const size_t kNamesMax
    const size_t kNodeBytesMax

NAMES_MAX = kNamesMax
NODE_BYTES_MAX = kNodeBytesMax


cdef extern from "request_limits.hpp" namespace "kumafast::xds" nogil:
    const char* find_excess "kumafast::xds::find_excess"(Octets octets, cpp_bool is_delta)


def request_excess(bytes data not None, /, *, cpp_bool is_delta):
    """What a request has too much of, None where nothing: names, versions, octets of a text, of the node, of an error.

    The limits are those of `ext/limits.hpp`. O(fields), at most some 150,000 of them.

    >>> request_excess(bytes([0x1a, 0]) * 1_000_000, is_delta=True)
    'too many names'
    """
    cdef const char* found = find_excess(
        Octets(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)), is_delta)
    return None if found == NULL else found.decode()


def cut_field(bytes data not None, uint64_t number, /):
    """A message's field as (content, the rest of the message); content is None where it is not among the first few.

    >>> cut_field(b"\\x0a\\x01n\\x12\\x01t", 1)
    (b'n', b'\\x12\\x01t')
    """
    cdef const char* octets = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef Field field = find_field(Octets(<const uint8_t*>octets, size), number)
    cdef bytes rest
    if field.end == 0:
        return None, data
    rest = PyBytes_FromStringAndSize(NULL, size - (field.end - field.start))
    memcpy(PyBytes_AS_STRING(rest), octets, field.start)
    memcpy(PyBytes_AS_STRING(rest) + field.start, octets + field.end, size - field.end)
    return data[field.content:field.end], rest
