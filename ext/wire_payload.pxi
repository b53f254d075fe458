# A message of the wire as a Python object. Part of transport.pyx.
# In: what has a buffer. Out: bytes that streams share. Never: a copy where they are bytes already.

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
