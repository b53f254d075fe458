# cython: freethreading_compatible = True
"""Discovery requests as octets: what is too much of one, and its node set apart, which is 61 kB in some clients.

In: the octets of a message. Out: a judgement in words; a field's content, and the message without it; the versions of a
client that comes back, some at a time, for there may be a hundred thousand. Never: parsing of anything else.
"""

from border cimport PyUnicode_AsUTF8AndSize
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from wire cimport Field, Octets, find_field


cdef extern from "limits.hpp" namespace "kumafast::limits":
    const size_t kNamesMax
    const size_t kNodeBytesMax

NAMES_MAX = kNamesMax
NODE_BYTES_MAX = kNodeBytesMax


cdef extern from "fields.hpp" namespace "kumafast::xds" nogil:
    cdef cppclass FieldReader:
        FieldReader()
        FieldReader(Octets octets)
        cpp_bool next()
        uint64_t number()
        cpp_bool is_text()
        Octets content()
        size_t start()
        size_t end()
        cpp_bool is_done()

    cdef cppclass TextEntry:
        Octets key
        Octets value

    cpp_bool read_entry(Octets octets, TextEntry& entry)
    void write_text(string& out, uint64_t number, Octets text) except +


cdef extern from "request_limits.hpp" namespace "kumafast::xds" nogil:
    const char* find_excess "kumafast::xds::find_excess"(Octets octets, cpp_bool is_delta)


cdef Octets _octets(bytes data):
    return Octets(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef str _text(Octets octets):
    return PyUnicode_DecodeUTF8(<const char*>octets.data(), octets.size(), NULL)


def request_excess(bytes data not None, /, *, cpp_bool is_delta):
    """What a request has too much of, None where nothing: names, versions, octets of a text, of the node, of an error.

    The limits are those of `ext/limits.hpp`. O(fields), at most some 150,000 of them.

    >>> request_excess(bytes([0x1a, 0]) * 1_000_000, is_delta=True)
    'too many names'
    """
    cdef const char* found = find_excess(_octets(data), is_delta)
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


cdef class VersionReader:
    """Takes a map of texts out of a message, some of its entries at a time: protobuf takes a microsecond for each.

    >>> reader = VersionReader(bytes.fromhex("2a060a016e120176 120174"), 5)
    >>> reader.read(1000), reader.versions, bytes(reader.rest)
    (True, {'n': 'v'}, b'\\x12\\x01t')
    """

    cdef readonly dict versions
    """The entries so far."""
    cdef readonly bytearray rest
    """The message without them, as far as it was read."""
    cdef bytes data
    cdef uint64_t number
    cdef FieldReader reader

    def __cinit__(self, bytes data not None, uint64_t number, /):
        self.data = data
        self.number = number
        self.versions = {}
        self.rest = bytearray()
        self.reader = FieldReader(_octets(data))

    def read(self, Py_ssize_t count, /):
        """Read so many fields; True where that was all of them.

        ValueError for what is not well formed, a group of fields included; UnicodeDecodeError, which is one too.
        """
        cdef TextEntry entry
        while count > 0 and not self.reader.is_done():
            count -= 1
            if not self.reader.next():
                raise ValueError("a field that is not well formed")
            if self.reader.number() != self.number or not self.reader.is_text():
                self._keep(self.reader.start(), self.reader.end())
            elif read_entry(self.reader.content(), entry):
                self.versions[_text(entry.key)] = _text(entry.value)
            else:
                raise ValueError("an entry that is not well formed")
        return self.reader.is_done()

    cdef int _keep(self, size_t start, size_t end) except -1:
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self.rest)
        PyByteArray_Resize(self.rest, size + end - start)
        memcpy(PyByteArray_AS_STRING(self.rest) + size, PyBytes_AS_STRING(self.data) + start, end - start)
        return 0


def join_texts(uint64_t number, texts, /):
    """The octets of a repeated field of texts, empty ones among them.

    >>> join_texts(6, ["a", ""])
    b'2\\x01a2\\x00'
    """
    cdef string joined
    cdef Py_ssize_t size = 0
    cdef const char* text
    for each in texts:
        text = PyUnicode_AsUTF8AndSize(each, &size)
        write_text(joined, number, Octets(<const uint8_t*>text, size))
    return PyBytes_FromStringAndSize(joined.data(), joined.size())
