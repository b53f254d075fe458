# cython: freethreading_compatible = True
"""Work for many, a slice in each turn of the loop: a push to ten thousand streams holds up nobody for long.

In: callbacks, each cheap to be asked for again. Out: each called once, soon, in the order of their first asking.
Never: more than a slice of them in one turn; more than one entry for each callback.
"""

from cpython.object cimport PyObject

from kumafast._core.channels cimport OBJECT_BYTES, PREFETCH_STEPS, PyList_GET_ITEM, Waiting

from wire cimport prefetch, steady_seconds

from asyncio import get_running_loop


cdef class Turns:
    """A queue of callbacks for one loop; holds as many as there are different ones.

    `ask(callback)` has a callback called once, soon, in the order of first asking, however often it is asked for before
    that. At most `most` are called in one turn, and none is begun when a turn has lasted `seconds`.

    >>> import asyncio
    >>> async def main():
    ...     done, turns = [], Turns(256, 0.002)
    ...     callback = lambda: done.append("called")
    ...     turns.ask(callback)
    ...     turns.ask(callback)
    ...     await asyncio.sleep(0.01)
    ...     return done
    >>> asyncio.run(main())
    ['called']
    """

    cdef readonly Py_ssize_t most
    """Callbacks in one turn at most."""
    cdef readonly double seconds
    """How long a turn may have lasted when another callback begins."""
    cdef readonly Py_ssize_t longest
    """The most that were called in one turn."""
    # In order, of which those before `next` have been called.
    cdef list waiting
    cdef Py_ssize_t next
    cdef set asked
    cdef bint is_scheduled

    def __cinit__(self, Py_ssize_t most, double seconds, /):
        self.most = most
        self.seconds = seconds
        self.waiting = []
        self.asked = set()

    def __len__(self):
        return len(self.waiting) - self.next

    def ask(self, callback, /):
        """Have `callback` called in one of the next turns."""
        self._ask(callback)
        self._schedule()

    def ask_all(self, callbacks, /):
        """Ask for each of them."""
        for callback in callbacks:
            self._ask(callback)
        self._schedule()

    cdef int _ask(self, callback) except -1:
        if callback not in self.asked:
            self.asked.add(callback)
            self.waiting.append(callback)
        return 0

    cdef int _schedule(self) except -1:
        if not self.is_scheduled and self.next < len(self.waiting):
            self.is_scheduled = True
            get_running_loop().call_soon(self._take)
        return 0

    def _take(self):
        cdef double ends = steady_seconds() + self.seconds
        cdef Py_ssize_t count = 0, most = min(self.most, <Py_ssize_t>len(self.waiting) - self.next)
        self.is_scheduled = False
        try:
            while count < most and (count == 0 or steady_seconds() < ends):
                self._prefetch()
                callback = self.waiting[self.next]
                self.waiting[self.next] = None
                self.next += 1
                self.asked.discard(callback)
                count += 1
                callback()
        finally:
            self.longest = max(self.longest, count)
            self._drop_called()
            self._schedule()

    cdef void _prefetch(self) noexcept:
        """Ask for the memory of those whose turns are about to come."""
        cdef Py_ssize_t step, at
        cdef PyObject* callback
        for step in range(PREFETCH_STEPS):
            at = self.next + PREFETCH_STEPS - step
            if at >= len(self.waiting):
                continue
            callback = PyList_GET_ITEM(self.waiting, at)
            if step == 0:
                prefetch(callback, OBJECT_BYTES)
            elif isinstance(<object>callback, Waiting):
                (<Waiting>callback).warm(step)

    cdef int _drop_called(self) except -1:
        # As many are moved as were called, at most.
        if 2 * self.next >= len(self.waiting):
            del self.waiting[:self.next]
            self.next = 0
        return 0
