# A connection as what an asyncio transport, a channel or a poller speaks to. Part of transport.pyx.
# In: what comes of a connection. Out: calls of the receivers of its streams. Never: what a message means.

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
    # What came and no turn had room for yet: one frame may bring thousands of messages.
    cdef vector[Event] left

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
        return self.write_message(stream, payload)

    cdef int write_message(self, uint32_t stream, payload) except -1:
        if not self._send(stream, <Payload?>payload):
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
        self.begin_polling(self.transport)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.octets_received(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef void warm(self, int step) noexcept:
        self.warm_own(step)
        if self.below is not None:
            self.below.warm_own(step - 1)

    cdef void warm_own(self, int step) noexcept:
        if step == 1:
            prefetch(self.session.get(), sizeof(Session))
            prefetch(self.streams.data(), 1)
            prefetch(<PyObject*>self.receivers, 1)
            prefetch(<PyObject*>self.below, OBJECT_BYTES)
        elif step == 2:
            dereference(self.session).prefetch(0)
            if self.receivers is not None:
                prefetch((<PyListObject*>self.receivers).ob_item, 1)
        elif step == 3:
            dereference(self.session).prefetch(1)
            if self.receivers:
                prefetch(PyList_GET_ITEM(self.receivers, 0), OBJECT_BYTES)

    cdef int octets_received(self, const uint8_t* octets, size_t count) except -1:
        cdef Lent[vector[Event]] lent
        cdef vector[Event]* events = &lent.get()
        if self.left.size() > 0:
            dereference(events).swap(self.left)
            self.left = vector[Event]()
        dereference(self.session).receive(
            Octets(octets, count), steady_seconds(), dereference(events), kEventsEachTurn)
        self._take_some(dereference(events))
        self._flush()
        self._note_written()
        if self._has_more():
            self.fell_behind()
        return 0

    cdef bint _has_more(self):
        return self.left.size() > 0 or dereference(self.session).is_behind()

    cdef int _take_some(self, vector[Event]& events) except -1:
        """Take as many as one turn has room for, and leave the rest."""
        cdef size_t at, count = min(events.size(), <size_t>kEventsEachTurn)
        for at in range(count):
            self._take(events[at], _is_followed(events, at))
        if count == events.size():
            return 0
        if events.back().kind == Kind.kEnd:
            # The connection is gone: nobody is there for what came before that.
            self._take(events.back(), False)
            return 0
        for at in range(count, events.size()):
            self.left.push_back(move(events[at]))
        return 0

    cdef int socket_ended(self, error) except -1:
        if self.transport is not None and error is not None:
            self.transport.abort()
        elif self.transport is not None and not self.eof_received():
            self.transport.close()
        return 0

    def set_reading(self, bint is_reading, /):
        """Have the socket read, or left alone until it is to be read again."""
        if self.is_polled:
            self.poller.set_reading(self.descriptor, is_reading)
        elif self.transport is not None and is_reading:
            self.transport.resume_reading()
        elif self.transport is not None:
            self.transport.pause_reading()

    @property
    def is_behind(self):
        """Whether something that was received has not been taken in."""
        return self._has_more()

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
        self.left.clear()
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
            receiver = self.receivers[at]
            if isinstance(receiver, Waiting):
                (<Waiting>receiver).take_message(message, is_followed)
            else:
                receiver.message_received(message, is_followed)
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
