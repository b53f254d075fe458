# cython: freethreading_compatible = True
"""Streams that stand at the same place: what one of them does next is worked out once, and the others do the same.

In: messages of clients, goals, moves that Python has worked out. Out: payloads for connections.
Never: rules of xDS. A move is known by the octets of the request that led to it, which nothing here understands.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from asyncio import get_running_loop
from collections import deque

from kumafast._core.channels cimport OBJECT_BYTES, Channel, Waiting

from wire cimport Octets, find_field, prefetch

from kumafast._core.requests import NODE_BYTES_MAX, cut_field

# What `Protocol.write` answers.
cdef int _GONE = 0, _WAITING = 2

# What a standing remembers: so many moves, each for a request of so many octets and with a payload of so many.
MOVES_MAX = 16
REQUEST_BYTES_KEPT_MAX = 8192
PAYLOAD_BYTES_KEPT_MAX = 1048576
# What is remembered for those who may come, beside what is for those who are there: so far ahead, and so much.
AHEAD_MAX = 8
BYTES_AHEAD_MAX = 16777216
# A request of more octets, without its node, is taken in by pieces: so many can hold some thousand names.
REQUEST_BYTES_AT_ONCE_MAX = 65536
cdef Py_ssize_t _REQUEST_BYTES_AT_ONCE_MAX = REQUEST_BYTES_AT_ONCE_MAX
cdef Py_ssize_t _BYTES_AT_ONCE_MAX = REQUEST_BYTES_AT_ONCE_MAX + NODE_BYTES_MAX
# What a move costs beside its octets: a session.
cdef size_t _BYTES_OF_MOVE = 4096


include "tally.pxi"
include "standings.pxi"


cdef class Target:
    """What the streams of one key should hold: the newest snapshot, and the goal that stands for its content.

    Its length is the number of its streams, and they are what it iterates over.

    >>> len(Target("web-1"))
    0
    """

    cdef readonly str key
    """The cache's key."""
    cdef public object snapshot
    """The newest snapshot of the key; None where there is none."""
    cdef public object goal
    """What stands for all snapshots with that one's content."""
    # One stream, or a set of several: one for each of ten thousand nodes is the rule.
    cdef object streams

    def __cinit__(self, str key not None, /):
        self.key = key

    def __len__(self):
        if self.streams is None:
            return 0
        return len(<set>self.streams) if type(self.streams) is set else 1

    def __iter__(self):
        if self.streams is None:
            return iter(())
        return iter(tuple(<set>self.streams)) if type(self.streams) is set else iter((self.streams,))

    cdef int add(self, Stream stream) except -1:
        if self.streams is None:
            self.streams = stream
        elif type(self.streams) is set:
            (<set>self.streams).add(stream)
        else:
            self.streams = {self.streams, stream}
        return 0

    cdef int discard(self, Stream stream) except -1:
        if self.streams is stream:
            self.streams = None
        elif type(self.streams) is set:
            (<set>self.streams).discard(stream)
            if not self.streams:
                self.streams = None
        return 0


cdef class Streams:
    """What the streams of one server share. A subclass knows what to do where nobody has done the same before.

    It has `admit(stream, node | None, request)` for the first request and for a move `compute(standing, request, goal,
    is_patient)`; it is told by `report`, `settled`, `finish`, `fail` and `closed`. To `defer(stream, data)` is to call
    `stream.take` with it later, and at last the stream, when it is not `is_deferred` any more.

    >>> Streams().tally.acknowledged
    0
    """

    cdef readonly Tally tally
    """What they did, counted."""
    cdef readonly object turns
    """The `Turns` in which they do it."""
    cdef readonly double patience_s
    """How long what must come later is held back for a client that does not answer."""
    # Streams that hold something back, each with the end of its patience, earliest first.
    cdef object holding
    cdef object timer

    def __cinit__(self, *what, **named):
        self.tally = Tally()
        self.holding = deque()

    def begin(self, turns, double patience_s, /):
        """Have these turns, and so much patience with each stream."""
        self.turns = turns
        self.patience_s = patience_s

    def stop_timer(self):
        """Have patience for ever."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.holding.clear()

    cdef int hold(self, Stream stream) except -1:
        loop = get_running_loop()
        stream.patient_until = loop.time() + self.patience_s
        self.holding.append((stream.patient_until, stream))
        if self.timer is None:
            self.timer = loop.call_at(stream.patient_until, self._end_patience)
        return 0

    def _end_patience(self):
        cdef Stream stream
        cdef double until
        loop = get_running_loop()
        self.timer = None
        while self.holding:
            until, stream = self.holding[0]
            if stream.patient_until == until and until > loop.time():
                # There is a timer only while something is held back.
                self.timer = loop.call_at(until, self._end_patience)
                return
            self.holding.popleft()
            if stream.patient_until == until and stream.is_open:
                self.turns.ask(stream.lose_patience)


cdef class Stream(Waiting):
    """One stream, the receiver of its messages: a place among the standings, and how far its client has read.

    >>> stream = Stream(Streams(), Connection(), 1, Standing("a session"), node_field=1, is_observed=False)
    >>> stream.is_open, stream.standing.members
    (True, 1)
    """

    cdef readonly Streams fleet
    """The streams of its server."""
    cdef readonly object connection
    """The connection that it is on; None once it has ended."""
    cdef Channel channel
    cdef readonly Standing standing
    """Where it stands."""
    cdef readonly Target target
    """What it should hold; None until its first request."""
    cdef public object name
    """What observers know it by."""
    cdef public object synced
    """The snapshot that was last reported as synced."""
    cdef public object timer
    """Of the call's deadline."""
    cdef public double patient_until
    """When something was held back for so long that it goes out all the same; 0 where nothing is."""
    cdef readonly uint32_t id
    """Its number on the connection."""
    cdef uint8_t node_field
    cdef bint is_observed, is_impatient, is_over
    cdef readonly bint is_waiting
    """Whether its last message has not gone out."""
    cdef public bint is_deferred
    """Whether its requests are taken in later, so that nothing is due until then."""

    def __cinit__(
        self, Streams fleet not None, connection, uint32_t id, Standing standing not None, /, *,
        uint8_t node_field, bint is_observed,
    ):
        self.fleet = fleet
        self.connection = connection
        self.channel = connection if isinstance(connection, Channel) else None
        self.id = id
        self.standing = standing
        standing.members += 1
        self.node_field = node_field
        self.is_observed = is_observed

    @property
    def is_open(self):
        """Whether it has not ended."""
        return self.connection is not None

    def aim(self, Target target not None, /):
        """Follow a target from now on."""
        self.target = target
        target.add(self)

    def stand(self, Standing standing not None, /):
        """Begin there, and not where new streams do. Only before its first request counts."""
        standing.members += 1
        self.standing.leave()
        self.standing = standing

    # As a receiver of the connection's.

    def message_received(self, bytes data not None, bint is_followed=False, /):
        """A request has come; where it is followed by another, both are answered together."""
        self.take_message(data, is_followed)

    cdef int take_message(self, bytes data, bint is_followed) except -1:
        cdef bytes node = None, request = data
        if self.connection is None:
            return 0
        if not self.is_deferred and PyBytes_GET_SIZE(data) <= _BYTES_AT_ONCE_MAX:
            # An acknowledgement mostly has no node.
            if find_field(Octets(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)), self.node_field).end:
                node, request = cut_field(data, self.node_field)
            if PyBytes_GET_SIZE(request) <= _REQUEST_BYTES_AT_ONCE_MAX:
                return self.take(node, request, is_followed)
        self.is_deferred = True
        self.fleet.defer(self, data)
        return 0

    cpdef int take(self, bytes node, bytes request, bint is_followed) except -1:
        """Take in a request, set apart from its node, and send what is due, unless it is followed by another."""
        try:
            if self.target is None:
                self.fleet.admit(self, node, request)
            self._go(request, is_followed)
        except Exception as error:
            self.fleet.fail(self, error)
        return 0

    def end_received(self):
        """The client will ask for nothing more; what it has asked for it still gets."""
        self.is_over = True
        self()

    def written(self):
        """The message that waited has gone out."""
        self.is_waiting = False
        self()

    def stream_lost(self):
        """The stream is gone."""
        self.close()

    # The fleet's side.

    def __call__(self):
        """Send what is due by now."""
        if self.connection is None or self.is_deferred:
            return
        try:
            if not self.is_waiting and self.target is not None:
                self._go(None, False)
            if self.is_over and not self.is_waiting and self.connection is not None:
                self.fleet.finish(self)
        except Exception as error:
            self.fleet.fail(self, error)

    def lose_patience(self):
        """Send what is held back."""
        self.patient_until = 0
        self.is_impatient = True
        self()

    def close(self):
        """Stand nowhere any more; True where it did until now."""
        if self.connection is None:
            return False
        self.connection = self.channel = None
        self.standing.leave()
        if self.target is not None:
            self.target.discard(self)
        self.fleet.closed(self)
        return True

    cdef void warm(self, int step) noexcept:
        if step == 1:
            prefetch(<PyObject*>self.channel, OBJECT_BYTES)
            prefetch(<PyObject*>self.target, 1)
        elif self.channel is not None:
            self.channel.warm(step - 1)

    cdef int _write(self, payload) except -1:
        cdef Channel channel = self.channel
        if channel is not None:
            return channel.write_message(self.id, payload)
        return self.connection.write(self.id, payload)

    cdef Move _find(self, bytes request, object goal, bint is_patient):
        cdef Move move = self.standing.find(request, goal, is_patient)
        if move is not None:
            self.fleet.tally.repeated += 1
            return move
        move = self.fleet.compute(self.standing, request, goal, is_patient)
        move.request = request
        move.goal = goal
        move.is_patient = is_patient
        self.standing.keep(move, self.fleet.tally)
        self.fleet.tally.computed += 1
        return move

    cdef int _go(self, bytes request, bint is_followed) except -1:
        """Move until nothing is due, or the client has to read first."""
        cdef Move move
        cdef Standing before
        cdef object goal = None
        cdef int written
        cdef bint is_patient = self.is_waiting or not self.is_impatient
        if not self.is_waiting:
            self.is_impatient = False
        while True:
            # To somebody who does not read nothing is due: what it lacks is found out once it does.
            goal = None if self.is_waiting or is_followed else self.target.goal
            move = self._find(request, goal, is_patient)
            request = None
            if move.after is not self.standing:
                before = self.standing
                move.after.members += 1
                self.standing = move.after
                before.leave()
            self.fleet.tally.acknowledged += move.acknowledged
            self.fleet.tally.rejected += move.rejected
            if move.events and (self.is_observed or move.rejected):
                self.fleet.report(self, move.events)
            if move.payload is None:
                break
            if self.connection is None:
                return 0
            self.fleet.tally.sent += 1
            written = self._write(move.payload)
            if written == _WAITING:
                self.is_waiting = True
                return 0
            if written == _GONE:
                return 0
            if move.is_last and self.target.goal is goal:
                break
        if self.is_waiting or is_followed:
            return 0
        if not move.is_holding:
            self.patient_until = 0
        elif self.patient_until == 0:
            self.fleet.hold(self)
        if self.is_observed:
            self.fleet.settled(self, move.is_synced)
        return 0
