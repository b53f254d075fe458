"""What the search for cycles of dead objects need not look at.

In: objects that are in no cycle and never will be. Out: nothing. Never: an object that is freed otherwise than before:
what is in no cycle goes with the last reference to it.
"""

from cpython.object cimport PyObject


cdef extern from "Python.h":
    int PyObject_GC_IsTracked(PyObject* object)
    void PyObject_GC_UnTrack(void* object)


def untrack(*objects):
    """Take these objects out of what Python's collector walks through, as it does itself with tuples of texts.

    Whoever says so of an object in a cycle keeps that cycle for good. A dict that is changed comes back by itself.

    >>> import gc
    >>> layers = ([],)
    >>> untrack(layers)
    >>> gc.is_tracked(layers), gc.is_tracked(layers[0])
    (False, True)
    """
    cdef object each
    for each in objects:
        # False also for what the collector knows nothing of, which must not be touched.
        if PyObject_GC_IsTracked(<PyObject*>each):
            PyObject_GC_UnTrack(<PyObject*>each)
