"""What the streams of a server have done, counted. Included by `streams.pyx`, which counts."""


cdef class Tally:
    """What all streams of a server together were sent and have answered, counted without asking any of them.

    >>> Tally().sent
    0
    """

    cdef readonly size_t sent
    """Responses that went out."""
    cdef readonly size_t acknowledged
    """Responses that a client took."""
    cdef readonly size_t rejected
    """Responses that a client refused."""
    cdef readonly size_t computed
    """Moves that had to be worked out."""
    cdef readonly size_t repeated
    """Moves that another stream had made before."""
    cdef readonly size_t bytes_kept
    """What is remembered of moves, about."""
