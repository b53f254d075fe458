# cython: freethreading_compatible = True
"""Discovery requests as octets: their node set apart, which is 61 kB in some clients and comes with every ACK.

In: the bytes of a message. Out: a field's content, and the message without it. Never: a judgement of either.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from wire cimport Field, Octets, find_field


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
