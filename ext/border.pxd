"""What every binding asks of what comes in: text is exactly str, without NUL, encodable; an id is a 32-bit number."""

from cpython.dict cimport PyDict_Next
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr


cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object text)
    object PyUnicode_FromObject(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    ctypedef struct PyTypeObject:
        void* tp_iter
    PyTypeObject PyDict_Type
    PyTypeObject* Py_TYPE(object each)


cdef inline bint is_exact(object texts) noexcept:
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t at = 0
    while PyDict_Next(texts, &at, &key, &value):
        if not (PyUnicode_CheckExact(<object>key) and PyUnicode_CheckExact(<object>value)):
            return False
    return True


cdef inline object exact_text(object text):
    if not isinstance(text, str):
        raise TypeError(f"expected str, not {type(text).__name__}")
    return PyUnicode_FromObject(text)


cdef inline object exact_texts(object texts):
    """`texts` as a dict of exactly str to exactly str, so that no foreign code runs while it is read.

    A dict of another class is read as it is where `dict(texts)` would copy it so: where it iterates as every dict does.
    """
    if isinstance(texts, dict) and Py_TYPE(texts).tp_iter == PyDict_Type.tp_iter and is_exact(texts):
        return texts
    from collections.abc import Mapping

    if not isinstance(texts, Mapping):
        raise TypeError(f"expected a mapping of str to str, not {type(texts).__name__}")
    return {exact_text(name): exact_text(text) for name, text in dict(texts).items()}


cdef inline const char* utf8(object text, Py_ssize_t* size) except NULL:
    """Points into `text`, which must outlive it."""
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, size)
    if memchr(data, 0, size[0]) != NULL:
        raise ValueError("a text must not contain NUL")
    return data


cdef inline int64_t number_of(object id) except? -2:
    """`id` as a number, or -1 where it cannot be an id."""
    cdef int overflow = 0
    if not PyLong_Check(id):
        return -1
    cdef long long number = PyLong_AsLongLongAndOverflow(id, &overflow)
    return number if overflow == 0 and 0 <= number <= 0xFFFFFFFF else -1


cdef inline uint32_t id_of(object id) except? 0xFFFFFFFF:
    cdef inline int64_t number = number_of(id)
    if number >= 0:
        return <uint32_t>number
    if not PyLong_Check(id):
        raise TypeError(f"an id must be an int, not {type(id).__name__}")
    raise OverflowError("an id must be in 0 … 2**32-1")
