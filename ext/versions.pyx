"""Differences between version maps: what a client holds against what it should.

In: two maps of resource name to version. Out: names to send, names to take away; a map without these.
Never: a copy of the maps. Both are dicts of str already, hashed and mostly the same objects, so this works on the
dicts themselves: any C++ form would first have to be built from them, at several times the cost of the comparison.
"""

from border cimport exact_texts
from cpython.dict cimport PyDict_DelItem, PyDict_GetItemWithError, PyDict_Next
from cpython.object cimport PyObject


cdef extern from "Python.h":
    int PyUnicode_Compare(object a, object b) except? -1


cdef bint _differ(PyObject* held, PyObject* wanted) except -1:
    # Versions come from one table of snapshots, so an equal one is nearly always the same object.
    return held != wanted and PyUnicode_Compare(<object>held, <object>wanted) != 0


def diff_versions(held, wanted, /):
    """(changed, removed): names in `wanted` that `held` lacks or has in another version; names only in `held`.

    Each in its map's order. The same object twice: ([], []) at once; else O(names of both).

    >>> diff_versions({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    (['b', 'd'], ['c'])
    """
    cdef object before, after
    cdef PyObject* name
    cdef PyObject* version
    cdef PyObject* known
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t shared = 0
    cdef list changed = []
    cdef list removed = []
    if held is wanted and type(held) is dict:
        return changed, removed
    before = exact_texts(held)
    after = before if held is wanted else exact_texts(wanted)
    while PyDict_Next(after, &at, &name, &version):
        known = PyDict_GetItemWithError(before, <object>name)
        if known != NULL:
            shared += 1
        if known == NULL or _differ(known, version):
            changed.append(<object>name)
    at = 0
    # Where every name held was met above, there is none to look for.
    while shared < len(before) and PyDict_Next(before, &at, &name, &version):
        if PyDict_GetItemWithError(after, <object>name) == NULL:
            removed.append(<object>name)
    return changed, removed


def forget_names(dict held not None, names, /):
    """Take names out of a map that may have them: a hundred thousand in some milliseconds.

    >>> held = {"a": "1", "b": "1"}
    >>> forget_names(held, ["b", "c"])
    >>> held
    {'a': '1'}
    """
    for name in names:
        if PyDict_GetItemWithError(held, name) != NULL:
            PyDict_DelItem(held, name)
