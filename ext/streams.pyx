# cython: freethreading_compatible = True
"""Streams that stand at the same place: what one of them does next is worked out once, and the others do the same.

In: messages of clients, goals, moves that Python has worked out. Out: payloads for connections.
Never: rules of xDS. A move is known by the octets of the request that led to it, which nothing here understands.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from asyncio import get_running_loop
from collections import deque

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
cdef Py_ssize_t _BYTES_AT_ONCE_MAX = REQUEST_BYTES_AT_ONCE_MAX + NODE_BYTES_MAX
# What a move costs beside its octets: a session.
cdef size_t _BYTES_OF_MOVE = 4096


include "tally.pxi"


cdef class Standing:
    """Where streams stand: a session that all of them share, and the moves from here that are known.

    `is_origin`: where new streams begin. It is remembered although nobody stands there.

    >>> Standing("a session").is_private
    True
    """

    cdef public object session
    """What it is that they share; None once it went on with its last stream."""
    cdef readonly object key
    """What it is found by when nothing is due; None where it cannot be shared with streams that come by another way."""
    cdef readonly Py_ssize_t members
    """How many streams stand here."""
    cdef readonly Py_ssize_t leads
    """How many remembered moves lead here: while one does, the session must stay as it is."""
    cdef readonly bint is_origin
    """Whether new streams begin here."""
    # How many moves ahead of those who stand somewhere.
    cdef int ahead
    cdef Tally tally
    cdef Move on_goal, on_request
    cdef dict moves
    cdef object __weakref__

    def __cinit__(self, session, /, *, key=None, bint is_origin=False):
        self.session = session
        self.key = key
        self.is_origin = is_origin

    @property
    def is_private(self):
        """Whether only one stream can ever move from here, so that its session may be changed in place."""
        return self.members <= 1 and self.leads == 0 and not self.is_origin

    @property
    def move_count(self):
        """How many moves are remembered."""
        return 0 if self.moves is None else len(self.moves)

    cdef Move find(self, bytes request, object goal, bint is_patient):
        cdef Move move = self.on_goal if request is None else self.on_request
        if move is not None and move.goal is goal and move.is_patient == is_patient and _equal(move.request, request):
            return move
        if self.moves is None:
            return None
        move = self.moves.get((request, goal, is_patient))
        if move is not None:
            self._recall(move)
        return move

    cdef void _recall(self, Move move):
        if move.request is None:
            self.on_goal = move
        else:
            self.on_request = move

    cdef int keep(self, Move move, Tally tally) except -1:
        """Remember a move for those who stand here too, or will."""
        cdef size_t size = move.size()
        if self.members < 2:
            # Others come by the moves that lead here, one after the other.
            if not self.is_origin and (self.leads == 0 or self.ahead >= AHEAD_MAX):
                return 0
            if tally.bytes_kept + size > BYTES_AHEAD_MAX:
                if self.is_origin:
                    self.forget_moves()
                return 0
        if not move.is_keepable():
            return 0
        if self.moves is not None and len(self.moves) >= MOVES_MAX:
            self.forget_moves()
        if self.moves is None:
            self.moves = {}
        self.moves[(move.request, move.goal, move.is_patient)] = move
        self.tally = tally
        tally.bytes_kept += size
        move.after.leads += 1
        move.after.ahead = 0 if self.members >= 2 else self.ahead + 1
        self._recall(move)
        return 0

    cdef int leave(self) except -1:
        self.members -= 1
        self._forget_if_left()
        return 0

    cdef int _forget_if_left(self) except -1:
        # What is at rest has no need to be ready for others: else each would hold the next, from the first to the last.
        if self.members == 0 and not self.is_origin and (self.leads == 0 or self.key is not None):
            self.forget_moves()
        return 0

    cpdef int forget_moves(self) except -1:
        """Remember none of the moves from here."""
        cdef Move move
        cdef dict moves = self.moves
        self.on_goal = self.on_request = None
        self.moves = None
        if moves is None:
            return 0
        for move in moves.values():
            self.tally.bytes_kept -= move.size()
            move.after.leads -= 1
            move.after._forget_if_left()
        return 0


cdef bint _equal(bytes one, bytes other):
    if one is other:
        return True
    if one is None or other is None or PyBytes_GET_SIZE(one) != PyBytes_GET_SIZE(other):
        return False
    return memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), PyBytes_GET_SIZE(one)) == 0


cdef class Move:
    """From one standing to the next: what is sent on the way, at most one message, and what there is to tell of it.

    `is_synced`, `is_holding` are about where it ends, and mean something where nothing was sent, or `is_last`.
    `is_own`: for one stream, which no other repeats.

    >>> Move(Standing("the next session"), acknowledged=1).after.session
    'the next session'
    """

    cdef readonly object payload
    """What is sent; None where it is nothing."""
    cdef readonly tuple events
    """What an observer is told."""
    cdef readonly Standing after
    """Where it leads to."""
    cdef readonly bint is_synced
    """Whether a client that stands there has all of the goal."""
    cdef readonly bint is_holding
    """Whether something waits there for the client's answer."""
    cdef readonly bint is_last
    """Whether nothing more is due where it ends, so that nobody needs to look."""
    cdef int acknowledged, rejected
    cdef bytes request
    cdef object goal
    cdef bint is_patient, is_own

    def __cinit__(
        self, Standing after not None, /, *, payload=None, tuple events=(), int acknowledged=0, int rejected=0,
        bint is_synced=False, bint is_holding=False, bint is_own=False, bint is_last=False,
    ):
        self.after, self.payload, self.events = after, payload, events
        self.acknowledged, self.rejected = acknowledged, rejected
        self.is_synced, self.is_holding, self.is_last, self.is_own = is_synced, is_holding, is_last, is_own

    cdef size_t size(self):
        cdef size_t size = _BYTES_OF_MOVE
        if self.payload is not None:
            size += len(self.payload)
        return size if self.request is None else size + PyBytes_GET_SIZE(self.request)

    cdef bint is_keepable(self):
        if self.request is not None and PyBytes_GET_SIZE(self.request) > REQUEST_BYTES_KEPT_MAX:
            return False
        return not self.is_own and (self.payload is None or len(self.payload) <= PAYLOAD_BYTES_KEPT_MAX)


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


cdef class Stream:
    """One stream, the receiver of its messages: a place among the standings, and how far its client has read.

    >>> stream = Stream(Streams(), Connection(), 1, Standing("a session"), node_field=1, is_observed=False)
    >>> stream.is_open, stream.standing.members
    (True, 1)
    """

    cdef readonly Streams fleet
    """The streams of its server."""
    cdef readonly object connection
    """The connection that it is on; None once it has ended."""
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

    # As a receiver of the connection's.

    def message_received(self, bytes data not None, bint is_followed=False, /):
        """A request has come; where it is followed by another, both are answered together."""
        cdef bytes node, request
        if self.connection is None:
            return
        if not self.is_deferred and PyBytes_GET_SIZE(data) <= _BYTES_AT_ONCE_MAX:
            node, request = cut_field(data, self.node_field)
            if PyBytes_GET_SIZE(request) <= REQUEST_BYTES_AT_ONCE_MAX:
                self.take(node, request, is_followed)
                return
        self.is_deferred = True
        self.fleet.defer(self, data)

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
        self.connection = None
        self.standing.leave()
        if self.target is not None:
            self.target.discard(self)
        self.fleet.closed(self)
        return True

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
            written = self.connection.write(self.id, move.payload)
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
