# cython: freethreading_compatible = True
"""Discovery requests before they are parsed.

In: the octets of one. Out: what is too much of it, in words. Never: parsing; what is not well formed passes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libcpp cimport bool as cpp_bool
from wire cimport Octets


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
