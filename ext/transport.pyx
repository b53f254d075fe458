# cython: freethreading_compatible = True
"""The wire: HTTP/2 connections that carry gRPC and plain requests, without sockets.

In: bytes as they come from sockets, payloads to send. Out: events as tuples, bytes to write, writes of a transport.
Never: xDS, or a Python object for each stream that a payload is pushed to beyond one write for its connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython.operator cimport dereference
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from kumafast._core.channels cimport OBJECT_BYTES, Channel, Poller, PyList_GET_ITEM, Waiting

from wire cimport (
    CPayload,
    ErrorCode,
    Event,
    Fields,
    Kind,
    Lent,
    Octets,
    Outgoing,
    Segment,
    Sent,
    Session,
    SessionOptions,
    kEventsEachTurn,
    kMessageBytesMax,
    kStreamsMax,
    prefetch,
    send_now,
    steady_seconds,
    string_view,
    write_head,
)


cdef extern from "Python.h":
    ctypedef struct PyListObject:
        void* ob_item


# The first element of each event.
REQUEST = 0
MESSAGE = 1
HALF_CLOSE = 2
RESET = 3
END = 4
HTTP_REQUEST = 5

# What `Protocol.rest_changed` is told.
cdef int _BUSY = 0
cdef int _OWING = 1
cdef int _IDLE = 2
BUSY = _BUSY
OWING = _OWING
IDLE = _IDLE

MESSAGE_BYTES_MAX = kMessageBytesMax
STREAMS_MAX = kStreamsMax

# How much one call of `collect` gathers at most: a transport that is full then says so before there is more, and who
# has others to serve does that before there is more.
cdef size_t _COLLECT_BYTES = 262144
# The same where the turn is not one of those that are asked for: there may be many such in one turn of the loop.
cdef size_t _COLLECT_UNASKED_BYTES = 65536


include "wire_payload.pxi"
include "wire_tuples.pxi"


cdef class Connection(Channel):
    """The server's side of one connection: HTTP/2 with gRPC or a plain request on each of its streams.

    `receive` takes what a socket brought and returns events, tuples that begin with their kind and stream:
    `(REQUEST, stream, path, headers, timeout_s | None)`, `(MESSAGE, stream, bytes)`, `(HALF_CLOSE, stream)`,
    `(RESET, stream, code, why)`: the stream is gone; `(END, 0, code, why)`: the connection is, with all its streams.
    What is no gRPC is `(HTTP_REQUEST, stream, method, path, [(name, value), …])` with path, names and values as bytes,
    and its messages are what has come of its body; it is answered by `respond`, then by `send` and `finish` as gRPC is.
    What is sent waits until `collect` is asked for it, or `flush` writes it to the transport that was attached.
    One thread at a time.

    >>> connection = Connection()
    >>> connection.receive(b"GET / HTTP/1.1", 0.0)
    [(4, 0, 1, 'not the preface of HTTP/2')]
    """

    cdef unique_ptr[Session] session
    cdef object transport
    # The transport, where it is one of the core's own.
    cdef Channel below
    cdef bint is_behind
    cdef bint is_paused

    def __cinit__(self, *, size_t message_bytes_max=kMessageBytesMax, uint32_t streams_max=kStreamsMax):
        cdef SessionOptions options
        options.message_bytes_max = message_bytes_max
        options.streams_max = streams_max
        self.session = make_unique[Session](options)

    def receive(self, data, double now, /):
        """Take in bytes of the client at the time `now`, seconds that never go back; returns the list of events."""
        cdef Py_buffer view
        cdef vector[Event] events
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            dereference(self.session).receive(Octets(<const uint8_t*>view.buf, view.len), now, events)
        finally:
            PyBuffer_Release(&view)
        cdef list found = []
        cdef size_t at
        for at in range(events.size()):
            found.append(_as_tuple(events[at]))
        return found

    def send(self, uint32_t stream, Payload payload not None, /):
        """Queue one message; False where the stream is gone. BufferError: its client does not read."""
        return self._send(stream, payload)

    cdef bint _send(self, uint32_t stream, Payload payload) except -1:
        cdef Sent sent = dereference(self.session).send(stream, payload.payload)
        if sent == Sent.kFull:
            raise BufferError("too much waits on this stream already")
        return sent == Sent.kQueued

    def respond(self, uint32_t stream, int status, headers, /):
        """Begin the answer to a plain request with a status, 200 to 599, and (name, value) pairs of bytes.

        False where the stream is gone or answered already. ValueError for what no answer may begin with.
        """
        cdef Fields fields
        cdef string head
        for name, value in headers:
            fields.push_back(pair[string, string](<bytes?>name, <bytes?>value))
        if not 0 <= status <= 999 or not write_head(head, <uint16_t>status, fields):
            raise ValueError(f"an answer cannot begin with the status {status} and these headers")
        return dereference(self.session).respond(stream, head)

    def finish(self, uint32_t stream, int status, str message="", /):
        """End a stream with a gRPC status, 0 to 16, after what is queued on it; False where it is gone already.

        A plain answer ends as it is with status 0; with another it becomes a 500, or, if it has begun, a reset.
        """
        if not 0 <= status <= 16:
            raise ValueError(f"{status} is no status of gRPC")
        cdef bytes text = message.encode("utf-8", "replace")
        return dereference(self.session).finish(
            stream, <uint8_t>status, string_view(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))

    def reset(self, uint32_t stream, uint32_t code, /):
        """End a stream at once with an error code of HTTP/2; what is queued is dropped. False where it is gone."""
        return dereference(self.session).reset(stream, <ErrorCode>code)

    def queued(self, uint32_t stream, /):
        """Bytes that wait on a stream for the client's windows or for a call of `collect`; 0 where it is gone."""
        return dereference(self.session).queued(stream)

    def drain(self):
        """Ask the client to open no more streams; those that it has are served. A second call waits for no answer."""
        dereference(self.session).drain()

    def collect(self, size_t budget=_COLLECT_BYTES, /):
        """What may be written now, about `budget` bytes at most, as a list for `transport.writelines`."""
        cdef Outgoing outgoing
        dereference(self.session).collect(outgoing, budget)
        return _as_buffers(outgoing, 0)

    def attach(self, transport, int descriptor=-1, Poller poller=None, /):
        """Let `flush` write to an asyncio transport; None: to none any more.

        With the descriptor of its socket, what that takes at once does not go through the transport, which costs as
        much as the system call; nor does what it brings, where there is a poller. It must be the socket of a plain
        stream, and not be closed before this is called with None.
        """
        self.end_polling()
        self.transport = transport
        self.below = transport if isinstance(transport, Channel) else None
        self.descriptor = descriptor
        self.poller = poller
        self.is_behind = False

    def pause_writing(self):
        """Let nothing be written until `resume_writing`."""
        self.is_paused = True

    def resume_writing(self):
        """Write what has waited since `pause_writing`."""
        self.is_paused = False
        self._flush()

    def flush(self):
        """Write what may be written to the transport; close that once nothing more will come."""
        self._flush()

    cdef int _flush(self, size_t budget=_COLLECT_UNASKED_BYTES) except -1:
        cdef Lent[Outgoing] lent
        cdef Outgoing* outgoing
        cdef Channel below
        while self.transport is not None and not self.is_paused:
            outgoing = &lent.get()
            outgoing.clear()
            dereference(self.session).collect(dereference(outgoing), budget)
            if outgoing.segments().empty():
                break
            below = self.below
            if below is not None:
                below.write_outgoing(dereference(outgoing))
            elif not self._write(dereference(outgoing)):
                return 0
            if outgoing.bytes() >= budget and self._puts_off():
                break
        self._note_rest()
        if self.transport is not None and dereference(self.session).want_close():
            self.transport.close()
            self.attach(None)
        return 0

    cdef bint _puts_off(self) except -1:
        return False

    cdef int _note_rest(self) except -1:
        return 0

    cdef bint _write(self, const Outgoing& outgoing) except -1:
        """Write to the transport, or past it; False where that is closing."""
        cdef size_t taken = 0
        cdef list buffers
        # Nothing may overtake what waits in the transport, and only that can have made it fail.
        if self.descriptor >= 0 and not (self.is_behind and self.transport.get_write_buffer_size() > 0):
            taken = send_now(self.descriptor, outgoing)
            if taken == outgoing.bytes():
                self.is_behind = False
                return True
        if self.transport.is_closing():
            return False
        buffers = _as_buffers(outgoing, taken)
        if len(buffers) == 1:
            self.transport.write(buffers[0])
        else:
            self.transport.writelines(buffers)
        self.is_behind = True
        return True

    @property
    def want_close(self):
        """Whether nothing more will come, once what was collected is written."""
        return dereference(self.session).want_close()

    @property
    def stream_count(self):
        """How many streams are open."""
        return dereference(self.session).stream_count()

    def __sizeof__(self):
        return object.__sizeof__(self) + dereference(self.session).allocated()


include "wire_protocol.pxi"


def push(list streams not None, Payload payload not None, /):
    """Send one payload on many streams, given as (connection, stream), and flush their connections.

    Returns how many there still are; streams that are gone or whose client does not read are passed over. O(streams);
    for each of them, one write of its transport is all that Python sees.

    >>> push([(Connection(), 1)], Payload(b"to a stream that nobody has opened"))
    0
    """
    cdef Connection connection
    cdef uint32_t stream
    cdef Py_ssize_t count = 0
    for each in streams:
        connection = (<tuple?>each)[0]
        stream = (<tuple>each)[1]
        if dereference(connection.session).send(stream, payload.payload) == Sent.kQueued:
            count += 1
            connection._flush()
    return count
