"""What octets go through between a socket and what is said over it; and who reads sockets for a loop."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t
from libcpp.vector cimport vector
from wire cimport Epoll, Outgoing


cdef extern from "Python.h":
    # Without a reference, or a look at it.
    PyObject* PyList_GET_ITEM(object items, Py_ssize_t at)


cdef enum:
    # Before its turn comes, what waits is asked for in so many steps.
    PREFETCH_STEPS = 5
    # Of an object, what is asked for first.
    OBJECT_BYTES = 256


# What waits for its turn among many. Its memory is asked for in steps, each of which may use what the one before it has
# asked for; step 0 is the object itself.
cdef class Waiting:
    cdef void warm(self, int step) noexcept
    # A message of the stream that it is the receiver of.
    cdef int take_message(self, bytes message, bint is_followed) except -1


cdef class Channel(Waiting):
    # Who is to read the socket in the transport's stead; None: nobody.
    cdef Poller poller
    # Whether it does.
    cdef bint is_polled
    # Of the socket, while it may be used past its transport; else -1.
    cdef int descriptor

    cdef int begin_polling(self, transport) except -1
    cdef int end_polling(self) except -1

    # As `warm`, for what a channel beside this one uses of it.
    cdef void warm_own(self, int step) noexcept

    # Octets have come; they live for the call only.
    cdef int octets_received(self, const uint8_t* octets, size_t count) except -1
    # Octets to be written. False where some of them wait.
    cdef bint write_outgoing(self, const Outgoing& outgoing) except -1
    # A message to be sent on a stream; the answer is that of `Protocol.write`.
    cdef int write_message(self, uint32_t stream, payload) except -1
    # Nothing more will come; None: the other side said so.
    cdef int socket_ended(self, error) except -1


cdef class Poller:
    cdef Py_ssize_t most
    cdef double seconds
    cdef Py_ssize_t most_read
    cdef Epoll epoll
    # How many sockets epoll has found last, and how many of them have been read.
    cdef Py_ssize_t found
    cdef Py_ssize_t next
    cdef object loop
    # By descriptor; None where nothing is read.
    cdef list channels
    cdef Py_ssize_t count
    cdef vector[uint8_t] buffer

    cdef bint add(self, Channel channel, int descriptor) except -1
    cdef int discard(self, int descriptor) except -1
    cdef int set_reading(self, int descriptor, bint is_reading) except -1
    cdef void _prefetch(self, int descriptor, int step) noexcept
    cdef int _read(self, Channel channel, int descriptor) except -1
