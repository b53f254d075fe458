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
    send_now,
    steady_seconds,
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


include "wire_tuples.pxi"


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
    # Of the transport's socket, while that may be written to past the transport; else -1.
    cdef int descriptor
    cdef bint is_behind
    cdef bint is_paused

    def __cinit__(self, *, size_t message_bytes_max=kMessageBytesMax, uint32_t streams_max=kStreamsMax):
        cdef SessionOptions options
        options.message_bytes_max = message_bytes_max
        options.streams_max = streams_max
        self.session = make_unique[Session](options)
        self.descriptor = -1

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

    def attach(self, transport, int descriptor=-1, /):
        """Let `flush` write to an asyncio transport; None: to none any more.

        With the descriptor of its socket, what that takes at once does not go through the transport, which costs as
        much as the system call. It must be the socket of a plain stream, and not be closed before `is_closing`.
        """
        self.transport = transport
        self.descriptor = descriptor
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
        cdef list buffers
        cdef Lent[Outgoing] lent
        cdef Outgoing* outgoing
        while self.transport is not None and not self.is_paused:
            outgoing = &lent.get()
            outgoing.clear()
            dereference(self.session).collect(dereference(outgoing), budget)
            if outgoing.segments().empty():
                break
            if self.transport.is_closing():
                return 0
            buffers = _as_buffers(dereference(outgoing), self._send_past_transport(dereference(outgoing)))
            if len(buffers) == 1:
                self.transport.write(buffers[0])
            elif len(buffers) > 1:
                self.transport.writelines(buffers)
            self.is_behind = len(buffers) > 0
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

    cdef size_t _send_past_transport(self, const Outgoing& outgoing) except? 0:
        if self.descriptor < 0 or (self.is_behind and self.transport.get_write_buffer_size() > 0):
            # Behind what waits in the transport, or in no order at all.
            return 0
        return send_now(self.descriptor, outgoing)

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


cdef class Protocol(Connection):
    """A connection as the protocol of an asyncio transport; what comes on a stream goes to the stream's receiver.

    A subclass has `connection_made`, which attaches the transport, `request_received(stream, path, headers,
    timeout_s)` and `http_request_received(stream, method, path, headers)`, which may call `serve`, and
    `connection_failed(code, why)`. A receiver has `message_received(bytes, is_followed)`,
    `end_received()`, `stream_lost()`, and `written()`, which follows a `write` that had to wait. A subclass with others
    to serve overrides `put_off()` and `rest_changed(rest)`.

    >>> Protocol().served
    ()
    """

    # Streams that are served, in the order of their numbers, which only grow.
    cdef vector[uint32_t] streams
    cdef list receivers
    # Those whose last message has not gone out.
    cdef set waiting
    # What `rest_changed` was told last.
    cdef int rest

    def serve(self, uint32_t stream, receiver, /):
        """Give a receiver what comes on a stream from now on. It must be the newest stream that is served."""
        if self.receivers is None:
            self.receivers = []
        if self.streams.size() > 0 and self.streams.back() >= stream:
            raise ValueError("streams are served in the order in which they come")
        self.receivers.append(receiver)
        self.streams.push_back(stream)

    def forget(self, uint32_t stream, /):
        """Have no receiver for a stream any more; what comes on it is passed over."""
        cdef Py_ssize_t at = self._place(stream)
        if at >= 0:
            self._remove(at)

    @property
    def served(self):
        """The receivers of all streams."""
        return () if self.receivers is None else tuple(self.receivers)

    def write(self, uint32_t stream, Payload payload not None, /):
        """Send one message: 1 where it has gone out, 2 where it waits for the client, 0 where the stream is gone."""
        if not self._send(stream, payload):
            return 0
        self._flush()
        if dereference(self.session).queued(stream) == 0:
            return 1
        if self.waiting is None:
            self.waiting = set()
        self.waiting.add(stream)
        return 2

    def data_received(self, data, /):
        """Take in what the socket brought, or of that what one turn has room for.

        Where more is left, `fell_behind()` of the subclass is called: it should read nothing more, and call this again
        with nothing when others have had their turn.
        """
        cdef Py_buffer view
        cdef Lent[vector[Event]] lent
        cdef vector[Event]* events = &lent.get()
        cdef size_t at
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            dereference(self.session).receive(
                Octets(<const uint8_t*>view.buf, view.len), steady_seconds(), dereference(events), kEventsEachTurn)
        finally:
            PyBuffer_Release(&view)
        for at in range(events.size()):
            self._take(dereference(events)[at], _is_followed(dereference(events), at))
        self._flush()
        self._note_written()
        if dereference(self.session).is_behind():
            self.fell_behind()

    @property
    def is_behind(self):
        """Whether something that was received has not been taken in."""
        return dereference(self.session).is_behind()

    def resume_writing(self):
        """Write what has waited since `pause_writing`."""
        self.is_paused = False
        self._flush()
        self._note_written()

    def put_off(self):
        """Whether `go_on` will be called in a turn to come, so that this one writes about 64 KiB at most."""
        return False

    def go_on(self):
        """Write what was put off, or another quarter of a MB of it."""
        self._flush(_COLLECT_BYTES)
        self._note_written()

    def rest_changed(self, int rest, /):
        """The client has become BUSY, OWING (it has begun something and left the rest for later), or IDLE (no call)."""

    def end_silence(self, double seconds, /):
        """End what the client owes for so long; whether it still owes anything."""
        cdef vector[Event] events
        cdef size_t at
        dereference(self.session).end_silence(steady_seconds() - seconds, events)
        for at in range(events.size()):
            self._take(events[at], False)
        self._flush()
        return dereference(self.session).owes()

    cdef bint _puts_off(self) except -1:
        return self.put_off()

    cdef int _note_rest(self) except -1:
        cdef int rest = _BUSY
        if dereference(self.session).owes():
            rest = _OWING
        elif dereference(self.session).stream_count() == 0:
            rest = _IDLE
        if rest != self.rest and self.transport is not None:
            self.rest = rest
            self.rest_changed(rest)
        return 0

    def eof_received(self):
        """The client has closed its half, and HTTP/2 has no use for the other."""
        return False

    def connection_lost(self, error, /):
        """The transport is gone, and with it all streams."""
        self.attach(None)
        self._drop_all()

    cdef Py_ssize_t _place(self, uint32_t stream):
        cdef Py_ssize_t low = 0, high = self.streams.size(), middle
        while low < high:
            middle = (low + high) // 2
            if self.streams[middle] < stream:
                low = middle + 1
            else:
                high = middle
        return low if low < <Py_ssize_t>self.streams.size() and self.streams[low] == stream else -1

    cdef object _remove(self, Py_ssize_t at):
        cdef uint32_t stream = self.streams[at]
        self.streams.erase(self.streams.begin() + at)
        if self.waiting is not None:
            self.waiting.discard(stream)
        return self.receivers.pop(at)

    cdef int _drop_all(self) except -1:
        while self.streams.size() > 0:
            self._remove(self.streams.size() - 1).stream_lost()
        return 0

    cdef int _take(self, Event& event, bint is_followed) except -1:
        cdef Py_ssize_t at
        cdef tuple request
        if event.kind == Kind.kRequest:
            request = _as_tuple(event)
            self.request_received(request[1], request[2], request[3], request[4])
            return 0
        if event.kind == Kind.kHttpRequest:
            request = _as_tuple(event)
            self.http_request_received(request[1], request[2], request[3], request[4])
            return 0
        if event.kind == Kind.kEnd:
            self._drop_all()
            self.connection_failed(event.code, _text(event.text))
            return 0
        at = self._place(event.stream)
        if at < 0:
            return 0
        if event.kind == Kind.kMessage:
            message = PyBytes_FromStringAndSize(event.text.data(), event.text.size())
            self.receivers[at].message_received(message, is_followed)
        elif event.kind == Kind.kHalfClose:
            self.receivers[at].end_received()
        else:
            self._remove(at).stream_lost()
        return 0

    cdef int _note_written(self) except -1:
        cdef Py_ssize_t at
        if not self.waiting:
            return 0
        for stream in tuple(self.waiting):
            if dereference(self.session).queued(stream) == 0:
                self.waiting.discard(stream)
                at = self._place(stream)
                if at >= 0:
                    self.receivers[at].written()
        return 0


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
