# cython: freethreading_compatible = True
"""Streams that stand at the same place: what one of them does next is worked out once, and the others do the same.

In: messages of clients, goals, moves that Python has worked out. Out: payloads for connections.
Never: rules of xDS. A move is known by the octets of the request that led to it, which nothing here understands.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy
from wire cimport Field, Octets, find_field

# What `Protocol.write` answers.
cdef int _GONE = 0
cdef int _WAITING = 2

# What a place remembers: so many moves, each for a request of so many octets and with a payload of so many.
MOVES_MAX = 16
REQUEST_BYTES_KEPT_MAX = 8192
PAYLOAD_BYTES_KEPT_MAX = 1048576


cdef class Tally:
    """What all streams of a server together were sent and have answered, counted without asking any of them."""

    cdef readonly size_t sent
    cdef readonly size_t acknowledged
    cdef readonly size_t rejected
    cdef readonly size_t computed
    """Moves that had to be worked out."""
    cdef readonly size_t repeated
    """Moves that another stream had made before."""


cdef class Standing:
    """Where streams stand: a session that all of them share, and the moves from here that are known.

    `is_origin`: where new streams begin. It is remembered although nobody stands there.
    """

    cdef public object session
    cdef public object key
    """What it is found by, None where it cannot be shared with streams that come by another way."""
    cdef readonly Py_ssize_t members
    cdef readonly bint is_origin
    cdef readonly bint is_kept
    """Whether a remembered move leads here, so that its session must stay as it is."""
    cdef Move on_goal
    cdef Move on_request
    cdef dict moves
    cdef object __weakref__

    def __cinit__(self, session, /, *, key=None, bint is_origin=False):
        self.session = session
        self.key = key
        self.is_origin = is_origin

    @property
    def is_private(self):
        """Whether only one stream can ever move from here, so that its session may be changed in place."""
        return self.members <= 1 and not self.is_kept and not self.is_origin

    @property
    def move_count(self):
        """How many moves are remembered."""
        return 0 if self.moves is None else len(self.moves)

    def forget_moves(self):
        """Remember none of the moves from here."""
        self.on_goal = self.on_request = None
        self.moves = None

    cdef Move find(self, bytes request, object goal, bint is_patient):
        cdef Move move = self.on_goal if request is None else self.on_request
        if move is not None and move.goal is goal and move.is_patient == is_patient and _equal(move.request, request):
            return move
        if self.moves is None:
            return None
        move = self.moves.get((request, goal, is_patient))
        if move is not None:
            self.recall(move)
        return move

    cdef int recall(self, Move move) except -1:
        if move.request is None:
            self.on_goal = move
        else:
            self.on_request = move
        return 0

    cdef int keep(self, Move move) except -1:
        """Remember a move for those who stand here too, or will."""
        if self.members < 2 and not self.is_origin:
            return 0
        if move.request is not None and PyBytes_GET_SIZE(move.request) > REQUEST_BYTES_KEPT_MAX:
            return 0
        if move.payload is not None and len(move.payload) > PAYLOAD_BYTES_KEPT_MAX:
            return 0
        if self.moves is None or len(self.moves) >= MOVES_MAX:
            self.moves = {}
        self.moves[(move.request, move.goal, move.is_patient)] = move
        move.after.is_kept = True
        self.recall(move)
        return 0

    cdef int leave(self) except -1:
        self.members -= 1
        if self.members == 0 and not self.is_origin:
            # Else each place would hold the next, from the first to the last.
            self.forget_moves()
        return 0


cdef bint _equal(bytes one, bytes other):
    if one is other:
        return True
    if one is None or other is None or PyBytes_GET_SIZE(one) != PyBytes_GET_SIZE(other):
        return False
    return memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), PyBytes_GET_SIZE(one)) == 0


cdef class Move:
    """From one standing to the next: what is sent on the way, at most one message, and what there is to tell of it.

    `is_synced` and `is_holding` are about where it ends, and mean something where nothing was sent.
    """

    cdef readonly object payload
    cdef readonly tuple events
    cdef readonly Standing after
    cdef readonly bint is_synced
    cdef readonly bint is_holding
    cdef int acknowledged
    cdef int rejected
    cdef bytes request
    cdef object goal
    cdef bint is_patient

    def __cinit__(
        self, Standing after not None, /, *, payload=None, tuple events=(), int acknowledged=0, int rejected=0,
        bint is_synced=False, bint is_holding=False,
    ):
        self.after = after
        self.payload = payload
        self.events = events
        self.acknowledged = acknowledged
        self.rejected = rejected
        self.is_synced = is_synced
        self.is_holding = is_holding


cdef class Target:
    """What the streams of one key should hold: the newest snapshot, and the goal that stands for its content."""

    cdef readonly str key
    cdef public object snapshot
    cdef public object goal
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


cdef class Stream:
    """One stream, the receiver of its messages: a place among the standings, and how far its client has read.

    `fleet` works out what is not known: `admit(stream, node | None, request)` for the first request,
    `compute(standing, request, goal, is_patient)` for a move; it is told by `report`, `settled`, `hold`, `fail`, `closed`.
    """

    cdef readonly object fleet
    cdef readonly object connection
    cdef readonly Tally tally
    cdef readonly Standing standing
    cdef readonly Target target
    cdef public object name
    """What observers know it by."""
    cdef public object synced
    """The snapshot that was last reported as synced."""
    cdef public object timer
    """Of the call's deadline."""
    cdef public double patient_until
    """When something was held back for so long that it goes out all the same; 0 where nothing is."""
    cdef readonly uint32_t id
    cdef uint8_t node_field
    cdef bint is_observed
    cdef bint is_impatient
    cdef bint is_over
    cdef readonly bint is_waiting
    """Whether its last message has not gone out."""

    def __cinit__(
        self, fleet, connection, uint32_t id, Standing standing not None, Tally tally not None, /, *,
        uint8_t node_field, bint is_observed,
    ):
        self.fleet = fleet
        self.connection = connection
        self.id = id
        self.standing = standing
        standing.members += 1
        self.tally = tally
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

    # As a receiver of the connection's.

    def message_received(self, bytes data not None, /):
        """A request has come."""
        cdef Field node
        cdef const char* octets = PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef bytes request = data
        if self.connection is None:
            return
        node = find_field(Octets(<const uint8_t*>octets, size), self.node_field)
        if node.end > 0:
            request = PyBytes_FromStringAndSize(NULL, size - (node.end - node.start))
            memcpy(PyBytes_AS_STRING(request), octets, node.start)
            memcpy(PyBytes_AS_STRING(request) + node.start, octets + node.end, size - node.end)
        try:
            if self.target is None:
                self.fleet.admit(self, data[node.content:node.end] if node.end > 0 else None, request)
            self._go(request)
        except Exception as error:
            self.fleet.fail(self, error)

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
        if self.connection is None:
            return
        try:
            if not self.is_waiting and self.target is not None:
                self._go(None)
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
        self.connection = None
        self.standing.leave()
        if self.target is not None:
            self.target.discard(self)
        self.fleet.closed(self)
        return True

    cdef Move _find(self, bytes request, object goal, bint is_patient):
        cdef Move move = self.standing.find(request, goal, is_patient)
        if move is not None:
            self.tally.repeated += 1
            return move
        move = self.fleet.compute(self.standing, request, goal, is_patient)
        move.request = request
        move.goal = goal
        move.is_patient = is_patient
        self.standing.keep(move)
        self.tally.computed += 1
        return move

    cdef int _go(self, bytes request) except -1:
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
            goal = None if self.is_waiting else self.target.goal
            move = self._find(request, goal, is_patient)
            request = None
            if move.after is not self.standing:
                before = self.standing
                move.after.members += 1
                self.standing = move.after
                before.leave()
            self.tally.acknowledged += move.acknowledged
            self.tally.rejected += move.rejected
            if move.events and (self.is_observed or move.rejected):
                self.fleet.report(self, move.events)
            if move.payload is None:
                break
            if self.connection is None:
                return 0
            self.tally.sent += 1
            written = self.connection.write(self.id, move.payload)
            if written == _WAITING:
                self.is_waiting = True
                return 0
            if written == _GONE:
                return 0
        if self.is_waiting:
            return 0
        if not move.is_holding:
            self.patient_until = 0
        elif self.patient_until == 0:
            self.fleet.hold(self)
        if self.is_observed:
            self.fleet.settled(self, move.is_synced)
        return 0
