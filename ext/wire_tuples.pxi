# What the wire's C++ gives, as Python's objects. Part of transport.pyx.
# In: events, what was gathered to be written. Out: tuples, buffers. Never: a connection.

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


cdef list _as_buffers(const Outgoing& outgoing, size_t taken):
    """What was gathered, but for the octets that were taken already."""
    cdef list buffers = []
    cdef const Segment* segment
    cdef size_t at, offset, count
    for at in range(outgoing.segments().size()):
        segment = &outgoing.segments()[at]
        offset, count = segment.offset + min(taken, segment.count), segment.count - min(taken, segment.count)
        taken -= segment.count - count
        if count == 0:
            continue
        if segment.payload.owner() == NULL:
            buffers.append(PyBytes_FromStringAndSize(outgoing.text().data() + offset, count))
        else:
            whole = memoryview(<object>segment.payload.owner())
            buffers.append(whole[offset:offset + count])
    return buffers


cdef bint _is_followed(const vector[Event]& events, size_t at):
    # Whether the next thing that has come is another message on the same stream. An ACK comes alone, so this is rarely
    # more than one comparison.
    cdef size_t after = at + 1
    return (
        after < events.size()
        and events[at].kind == Kind.kMessage
        and events[after].kind == Kind.kMessage
        and events[after].stream == events[at].stream
    )
