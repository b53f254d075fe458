# cython: freethreading_compatible = True
"""The wire: HTTP/2 connections that carry gRPC and plain requests, without sockets.

In: bytes as they come from sockets, payloads to send. Out: events as tuples, bytes to write, writes of a transport.
Never: xDS, or a Python object for each stream that a payload is pushed to beyond one write for its connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython.operator cimport dereference
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector
from wire cimport (
    CPayload,
    ErrorCode,
    Event,
    Fields,
    Kind,
    Octets,
    Outgoing,
    Segment,
    Sent,
    Session,
    SessionOptions,
    kMessageBytesMax,
    kStreamsMax,
    string_view,
    write_head,
)

# The first element of each event.
REQUEST = 0
MESSAGE = 1
HALF_CLOSE = 2
RESET = 3
END = 4
HTTP_REQUEST = 5

MESSAGE_BYTES_MAX = kMessageBytesMax
STREAMS_MAX = kStreamsMax

# How much one call of `collect` gathers at most: a transport that is full then says so before there is more.
cdef size_t _COLLECT_BYTES = 262144


cdef void _release(void* owner) noexcept with gil:
    Py_DECREF(<object>owner)


cdef class Payload:
    """One message, immutable, that any number of streams send without a copy of their own.

    >>> len(Payload(b"a response"))
    10
    """

    cdef CPayload payload
    cdef bytes data

    def __cinit__(self, data, /):
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        if len(data) > 0x7fffffff:
            raise OverflowError("a message has less than 2 GiB")
        self.data = data
        Py_INCREF(data)
        self.payload = CPayload(
            <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <void*>data, _release)

    def __len__(self):
        return PyBytes_GET_SIZE(self.data)

    def __bytes__(self):
        return self.data

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyBytes_AS_STRING(self.data), PyBytes_GET_SIZE(self.data), 1, flags)

    @property
    def references(self):
        """How many hold it: this object, and each time that it waits on a stream."""
        return self.payload.references()

    def __repr__(self):
        return f"<Payload of {len(self.data)} bytes>"


cdef str _text(const string& octets):
    # Headers and paths are ASCII where they mean anything; no octet may fail to be shown.
    return octets.data()[:octets.size()].decode("latin-1")


cdef bytes _octets(const string& octets):
    return octets.data()[:octets.size()]


cdef tuple _as_tuple(Event& event):
    cdef size_t at
    cdef list fields
    if event.kind == Kind.kMessage:
        return (MESSAGE, event.stream, PyBytes_FromStringAndSize(event.text.data(), event.text.size()))
    if event.kind == Kind.kHalfClose:
        return (HALF_CLOSE, event.stream)
    if event.kind == Kind.kReset:
        return (RESET, event.stream, event.code, _text(event.text))
    if event.kind == Kind.kEnd:
        return (END, 0, event.code, _text(event.text))
    if event.kind == Kind.kHttpRequest:
        fields = [(_octets(event.headers[at].first), _octets(event.headers[at].second))
                  for at in range(event.headers.size())]
        return (HTTP_REQUEST, event.stream, _text(event.method), _octets(event.text), fields)
    cdef dict headers = {}
    for at in range(event.headers.size()):
        headers[_text(event.headers[at].first)] = _text(event.headers[at].second)
    return (REQUEST, event.stream, _text(event.text), headers, None if event.timeout < 0 else event.timeout / 1e9)


cdef list _as_buffers(const Outgoing& outgoing):
    cdef list buffers = []
    cdef const Segment* segment
    cdef size_t at
    for at in range(outgoing.segments().size()):
        segment = &outgoing.segments()[at]
        if segment.payload.owner() == NULL:
            buffers.append(PyBytes_FromStringAndSize(outgoing.text().data() + segment.offset, segment.count))
        else:
            whole = memoryview(<object>segment.payload.owner())
            buffers.append(whole[segment.offset:segment.offset + segment.count])
    return buffers


cdef class Connection:
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
    cdef object write
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
        return _as_buffers(outgoing)

    def attach(self, transport, /):
        """Let `flush` write to an asyncio transport; None: to none any more."""
        self.transport = transport
        self.write = None if transport is None else transport.write

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

    cdef int _flush(self) except -1:
        cdef list buffers
        while self.write is not None and not self.is_paused:
            buffers = self.collect(_COLLECT_BYTES)
            if not buffers:
                break
            if self.transport.is_closing():
                return 0
            if len(buffers) == 1:
                self.write(buffers[0])
            else:
                self.transport.writelines(buffers)
        if self.write is not None and dereference(self.session).want_close():
            self.transport.close()
            self.attach(None)
        return 0

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
