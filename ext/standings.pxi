# Where streams stand, and the moves that lead from there. Part of streams.pyx.
# In: moves that were worked out. Out: those that are to be made again. Never: a stream.

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
