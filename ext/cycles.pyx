"""What the search for cycles of dead objects need not look at.

In: objects that are in no cycle and never will be. Out: nothing. Never: an object that is freed otherwise than before:
what is in no cycle goes with the last reference to it.
"""

from cpython.object cimport PyObject, traverseproc, visitproc

cdef int _DEPTH_MAX = 32

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        traverseproc tp_traverse
    PyTypeObject* Py_TYPE(PyObject* object)
    int PyType_Check(PyObject* object)
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


cdef int _untrack_within(PyObject* object, void* depth) noexcept:
    """Untrack what is tracked, and what it refers to but for classes; what is deeper than anybody nests stays."""
    cdef int level = (<int*>depth)[0]
    if level == 0 or PyType_Check(object) or not PyObject_GC_IsTracked(object):
        return 0
    PyObject_GC_UnTrack(<void*>object)
    level -= 1
    return Py_TYPE(object).tp_traverse(object, <visitproc>_untrack_within, <void*>&level)


def untrack_value(value, /):
    """`untrack` a value with all that it is made of: maps, sequences, instances that only refer downwards. O(those).

    >>> import gc
    >>> value = {"a": [1], "b": ({},)}
    >>> untrack_value(value)
    >>> gc.is_tracked(value), gc.is_tracked(value["a"])
    (False, False)
    """
    cdef int depth = _DEPTH_MAX
    _untrack_within(<PyObject*>value, &depth)
