# cython: freethreading_compatible = True
"""Sockets that are read past their transports, which take longer to bring an acknowledgement than all that follows.

In: channels, through which what comes from a socket goes. Out: to each the octets that its socket has brought.
Never: more in a turn of the loop than a slice; writing; closing a socket, or reading one that a transport reads.
"""

from cpython.object cimport PyObject
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint8_t, uint32_t
from wire cimport Outgoing, prefetch, receive_now, steady_seconds

from asyncio import get_running_loop

# What one socket brings in a turn at most: four records of TLS.
cdef size_t _READ_BYTES = 65536
# The clock is looked at once for so many sockets.
cdef Py_ssize_t _FOR_EACH_LOOK = 4


cdef class Waiting:
    """What has its turn among many; the core's own classes are made of it."""

    cdef void warm(self, int step) noexcept:
        pass

    cdef int take_message(self, bytes message, bint is_followed) except -1:
        raise NotImplementedError


cdef class Channel(Waiting):
    """Between a socket, or another channel, and what is said over it. The core's own classes are made of it."""

    def __cinit__(self):
        self.descriptor = -1

    cdef int begin_polling(self, transport) except -1:
        """Have the poller read from now on, where it can. No sooner than the transport itself has begun to."""
        if self.is_polled or self.poller is None or self.descriptor < 0:
            return 0
        if self.poller.add(self, self.descriptor):
            self.is_polled = True
            transport.pause_reading()
        else:
            self.poller = None
        return 0

    cdef int end_polling(self) except -1:
        """Have nobody read any more: the socket may be closed."""
        cdef Poller poller = self.poller
        self.poller = None
        if self.is_polled:
            self.is_polled = False
            poller.discard(self.descriptor)
        return 0

    cdef void warm(self, int step) noexcept:
        self.warm_own(step)

    cdef void warm_own(self, int step) noexcept:
        pass

    cdef int octets_received(self, const uint8_t* octets, size_t count) except -1:
        raise NotImplementedError

    cdef bint write_outgoing(self, const Outgoing& outgoing) except -1:
        raise NotImplementedError

    cdef int write_message(self, uint32_t stream, payload) except -1:
        raise NotImplementedError

    cdef int socket_ended(self, error) except -1:
        raise NotImplementedError


cdef class Poller:
    """Reads the sockets of channels for one loop; where the system has no epoll, their transports go on to do that.

    At most `most` sockets are read in one turn, one receive of each, and none is when a turn has lasted `seconds`: what
    is left comes first in the next, after everything else has had its turn. Of many that always have something to be
    read none is passed by: epoll sets behind the others whatever it has named, whether or not that has been read.

    >>> Poller(256, 0.002).longest
    0
    """

    def __cinit__(self, Py_ssize_t most, double seconds, /):
        self.most = most
        self.seconds = seconds
        self.channels = []

    @property
    def longest(self):
        """The most sockets that were read in one turn."""
        return self.most_read

    cdef bint add(self, Channel channel, int descriptor) except -1:
        if not self.epoll.open() or not self.epoll.watch(descriptor):
            return False
        if self.loop is None:
            loop = get_running_loop()
            loop.add_reader(self.epoll.descriptor(), self._take)
            self.loop = loop
            self.buffer.resize(_READ_BYTES)
        if descriptor >= len(self.channels):
            self.channels.extend([None] * (descriptor + 1 - len(self.channels)))
        self.channels[descriptor] = channel
        self.count += 1
        return True

    cdef int discard(self, int descriptor) except -1:
        self.epoll.forget(descriptor)
        self.epoll.strike_out(descriptor)
        self.channels[descriptor] = None
        self.count -= 1
        if self.count == 0:
            loop, self.loop = self.loop, None
            loop.remove_reader(self.epoll.descriptor())
        return 0

    cdef int set_reading(self, int descriptor, bint is_reading) except -1:
        if is_reading:
            self.epoll.watch(descriptor)
        else:
            self.epoll.forget(descriptor)
            self.epoll.strike_out(descriptor)
        return 0

    def _take(self):
        cdef double ends = steady_seconds() + self.seconds
        cdef Py_ssize_t first, ahead
        cdef Channel channel
        cdef int descriptor
        if self.next == self.found:
            self.next, self.found = 0, self.epoll.find(self.most)
        first = self.next
        while self.next < self.found:
            for ahead in range(PREFETCH_STEPS):
                if self.next + PREFETCH_STEPS - ahead < self.found:
                    self._prefetch(self.epoll.found(self.next + PREFETCH_STEPS - ahead), ahead)
            if (self.next - first) % _FOR_EACH_LOOK == _FOR_EACH_LOOK - 1 and steady_seconds() >= ends:
                break
            descriptor = self.epoll.found(self.next)
            self.next += 1
            # It has been struck out where one that was read before has ended it.
            channel = self.channels[descriptor] if descriptor >= 0 else None
            if channel is not None:
                self._read(channel, descriptor)
        self.most_read = max(self.most_read, self.next - first)

    cdef void _prefetch(self, int descriptor, int step) noexcept:
        cdef PyObject* channel
        if descriptor < 0:
            return
        channel = PyList_GET_ITEM(self.channels, descriptor)
        if channel == <PyObject*>None:
            pass
        elif step == 0:
            prefetch(channel, OBJECT_BYTES)
        else:
            (<Channel>channel).warm(step)

    cdef int _read(self, Channel channel, int descriptor) except -1:
        cdef int64_t count = receive_now(descriptor, self.buffer.data(), self.buffer.size())
        if count == -EAGAIN:
            return 0
        try:
            if count > 0:
                channel.octets_received(self.buffer.data(), count)
            else:
                channel.end_polling()
                channel.socket_ended(None if count == 0 else OSError(-count, "a connection broke"))
        except Exception as error:
            # As a transport does where its protocol fails: that connection ends, and others go on.
            get_running_loop().call_exception_handler(
                {"message": "what a socket has brought could not be taken in", "exception": error})
            channel.end_polling()
            channel.socket_ended(error)
        return 0
