# cython: freethreading_compatible = True
"""TLS for asyncio's transports by OpenSSL in the core: half the cost of Python's ssl, and flat under reconnects.

In: a transport of ciphertext, a protocol that wants plaintext. Out: the one as the other's transport.
Never: where OpenSSL's headers were not found when this was built; `HAS_TLS` says so, and Python's ssl serves then.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cython.operator cimport dereference
from libc.stdint cimport uint8_t
from libcpp cimport bool as cpp_bool
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.string cimport string

from kumafast._core.channels cimport OBJECT_BYTES, Channel, Poller

from wire cimport Lent, Octets, Outgoing, prefetch, send_now

import asyncio


cdef extern from "tls_session.hpp" namespace "kumafast::tls":
    const cpp_bool kIsAvailable

    cdef cppclass Context:
        Context()
        string load(const string& certificate, const string& key, const string& client_ca) except +

    cdef cppclass Session:
        Session(const Context& context) except +
        cpp_bool receive(Octets ciphertext, string& plaintext) except +
        cpp_bool send(Octets plaintext) except +
        cpp_bool send(const Outgoing& plaintext) except +
        void close()
        const string& outgoing()
        void clear_outgoing()
        void prefetch()
        cpp_bool is_established()
        cpp_bool is_over()
        string error()
        string version() except +
        string protocol() except +
        string client_certificate() except +


HAS_TLS = kIsAvailable

# The transports whose bytes are those of their sockets: of uvloop and asyncio, without TLS.
_PLAIN_TRANSPORTS = frozenset(
    {("uvloop.loop", "TCPTransport"), ("asyncio.selector_events", "_SelectorSocketTransport")}
)


def plain_socket(transport, /):
    """The descriptor of a transport's socket where that may be written to past the transport; else -1.

    >>> plain_socket(object())
    -1
    """
    kind = type(transport)
    if (kind.__module__, kind.__name__) not in _PLAIN_TRANSPORTS:
        return -1
    return transport.get_extra_info("socket").fileno()


cdef class TlsContext:
    """A server's certificate with its chain and key, as PEM files, and the authority of clients where they need one.

    OSError says why files are of no use. `reload` reads others; connections that there are keep what they began with.

    >>> TlsContext("absent.crt", "absent.key")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    OSError: ...
    """

    cdef Context context

    def __cinit__(self, certificate, key, client_ca=None, /):
        self.reload(certificate, key, client_ca)

    def reload(self, certificate, key, client_ca=None, /):
        """Use these files from the next connection on; where they are of no use, OSError and all is as before."""
        cdef Context fresh
        cdef bytes error = fresh.load(
            str(certificate).encode(), str(key).encode(), b"" if client_ca is None else str(client_ca).encode())
        if error:
            raise OSError(error.decode("utf-8", "replace"))
        self.context = fresh


cdef class TlsTransport(Channel):
    """Between a transport of ciphertext, whose protocol it is, and a protocol of plaintext, whose transport it is.

    `create_protocol` is called once the handshake is done. A client that has not done that within `handshake_s` is
    dropped. What is written is encrypted at once. Where the socket takes it at once it does not go through the
    transport below, which costs as much as the system call; else it waits there like anything else. Nor does what
    comes, where there is a poller.

    >>> def listen(loop, context, create_protocol):
    ...     return loop.create_server(lambda: TlsTransport(context, create_protocol, 10.0), "127.0.0.1", 8443)
    """

    cdef unique_ptr[Session] session
    cdef object __weakref__
    cdef object lower
    cdef object protocol
    # The protocol, where it is one of the core's own.
    cdef Channel above
    cdef object create_protocol
    cdef object timer
    cdef double handshake_s
    # Whether something may still wait in the transport below.
    cdef bint is_behind
    cdef bint is_closing_
    cdef bint is_paused

    def __cinit__(self, TlsContext context not None, create_protocol, double handshake_s, Poller poller=None, /):
        self.session = make_unique[Session](context.context)
        self.create_protocol = create_protocol
        self.handshake_s = handshake_s
        self.poller = poller

    # As the protocol of the transport below.

    def connection_made(self, transport, /):
        """The transport of ciphertext is there."""
        self.lower = transport
        self.descriptor = plain_socket(transport)
        self.timer = asyncio.get_running_loop().call_later(self.handshake_s, self.abort)

    def data_received(self, data, /):
        """Ciphertext has come."""
        cdef Py_buffer view
        self.begin_polling(self.lower)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.octets_received(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef void warm(self, int step) noexcept:
        self.warm_own(step)
        if self.above is not None:
            self.above.warm_own(step - 1)

    cdef void warm_own(self, int step) noexcept:
        if step == 1:
            prefetch(self.session.get(), sizeof(Session))
            prefetch(<PyObject*>self.above, OBJECT_BYTES)
        elif step == 2:
            dereference(self.session).prefetch()

    cdef int octets_received(self, const uint8_t* octets, size_t count) except -1:
        cdef Lent[string] lent
        cdef string* plaintext = &lent.get()
        cdef Channel above
        cdef bint goes_on = dereference(self.session).receive(Octets(octets, count), dereference(plaintext))
        # Answers of the handshake, or the alert that says why there is none.
        self._write_out()
        if self.protocol is None and dereference(self.session).is_established():
            self._begin()
        above = self.above
        if plaintext.size() > 0 and self.protocol is not None and not self.is_closing_:
            if above is not None:
                above.octets_received(<const uint8_t*>plaintext.data(), plaintext.size())
            else:
                self.protocol.data_received(PyBytes_FromStringAndSize(plaintext.data(), plaintext.size()))
        if not goes_on:
            self.close()
        return 0

    cdef int socket_ended(self, error) except -1:
        if error is None:
            self.lower.close()
        else:
            self.abort()
        return 0

    cdef int _begin(self) except -1:
        self.timer.cancel()
        self.timer = None
        self.set_protocol(self.create_protocol())
        self.create_protocol = None
        self.protocol.connection_made(self)
        return 0

    def eof_received(self):
        """The client's side has ended, and with it TLS, which knows no half of a connection."""
        return False

    def pause_writing(self):
        """The transport below is full."""
        if self.protocol is not None:
            self.protocol.pause_writing()

    def resume_writing(self):
        """The transport below has room again."""
        if self.protocol is not None:
            self.protocol.resume_writing()

    def connection_lost(self, exc, /):
        """The transport below is gone."""
        self.is_closing_ = True
        self.end_polling()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        protocol, self.protocol, self.above, self.create_protocol = self.protocol, None, None, None
        if protocol is not None:
            protocol.connection_lost(exc)

    # As the transport of the protocol above.

    def write(self, data, /):
        """Encrypt and write."""
        if self.is_closing_:
            return
        self._encrypt(data)
        self._write_out()

    def writelines(self, lines, /):
        """Encrypt and write all, in one write."""
        if self.is_closing_:
            return
        for each in lines:
            self._encrypt(each)
        self._write_out()

    cdef bint write_outgoing(self, const Outgoing& outgoing) except -1:
        if self.is_closing_:
            return True
        dereference(self.session).send(outgoing)
        self._write_out()
        return not self.is_behind

    cdef int _encrypt(self, data) except -1:
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            dereference(self.session).send(Octets(<const uint8_t*>view.buf, view.len))
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int _write_out(self) except -1:
        cdef const char* octets = dereference(self.session).outgoing().data()
        cdef size_t size = dereference(self.session).outgoing().size(), taken = 0
        cdef bytes rest
        if size == 0:
            return 0
        # Nothing may overtake what waits in the transport, and only that can have made it fail.
        if self.descriptor >= 0 and not (self.is_behind and self.lower.get_write_buffer_size() > 0):
            taken = send_now(self.descriptor, octets, size)
        rest = PyBytes_FromStringAndSize(octets + taken, size - taken) if taken < size else None
        dereference(self.session).clear_outgoing()
        self.is_behind = rest is not None
        if rest is not None and not self.lower.is_closing():
            self.lower.write(rest)
        return 0

    def close(self):
        """End in order: what was written goes out, then word that no more will come."""
        if not self.is_closing_:
            self.is_closing_ = True
            dereference(self.session).close()
            self._write_out()
        self.end_polling()
        self.lower.close()

    def abort(self):
        """End now."""
        self.is_closing_ = True
        self.end_polling()
        self.lower.abort()

    def is_closing(self):
        """Whether nothing more can be written."""
        return self.is_closing_ or self.lower.is_closing()

    def set_protocol(self, protocol, /):
        """Let another protocol have what comes from now on."""
        self.protocol = protocol
        self.above = protocol if isinstance(protocol, Channel) else None

    def get_protocol(self):
        """Who has what comes."""
        return self.protocol

    def pause_reading(self):
        """Read nothing more until `resume_reading`."""
        self._set_reading(False)

    def resume_reading(self):
        """Read again."""
        self._set_reading(True)

    cdef int _set_reading(self, bint is_reading) except -1:
        self.is_paused = not is_reading
        if self.is_polled:
            self.poller.set_reading(self.descriptor, is_reading)
        elif self.is_closing_:
            pass
        elif is_reading:
            self.lower.resume_reading()
        else:
            self.lower.pause_reading()
        return 0

    def is_reading(self):
        """Whether it reads."""
        return not self.is_paused and not self.is_closing()

    def set_write_buffer_limits(self, high=None, low=None):
        """When the protocol is told to pause, in bytes of ciphertext."""
        self.lower.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self):
        """Bytes of ciphertext that wait."""
        return self.lower.get_write_buffer_size()

    def get_write_buffer_limits(self):
        """(low, high) in bytes of ciphertext."""
        return self.lower.get_write_buffer_limits()

    def can_write_eof(self):
        """TLS has no half of a connection to close."""
        return False

    def get_extra_info(self, name, default=None):
        """As the transport below, and of TLS `tls_version`, `alpn_protocol` and `client_certificate` (DER)."""
        if name == "tls_version":
            return dereference(self.session).version().decode()
        if name == "alpn_protocol":
            return dereference(self.session).protocol().decode()
        if name == "client_certificate":
            certificate = <bytes>dereference(self.session).client_certificate()
            return certificate or default
        if name == "sslcontext":
            # Protocols ask for it only to learn whether they are spoken to by TLS.
            return self
        return self.lower.get_extra_info(name, default)

    @property
    def error(self):
        """Why TLS ended, in OpenSSL's words; empty where it goes on or ended in order."""
        return dereference(self.session).error().decode("utf-8", "replace")
