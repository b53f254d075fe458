"""The C++ core as the bindings see it; std::span parameters are declared as the vectors that convert to them."""

from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.utility cimport pair
from libcpp.vector cimport vector


cdef extern from "<string_view>" namespace "std":
    cdef cppclass string_view:
        string_view()
        string_view(const char* data, size_t size)


cdef extern from "tag_table.hpp" namespace "kumafast" nogil:
    cdef cppclass TagIds "std::span<const kumafast::TagId>":
        pass

    cdef cppclass TagText:
        string_view key
        string_view value
        uint64_t key_hash
        uint64_t value_hash

    cdef cppclass TagTable:
        @staticmethod
        TagTable& shared()

        vector[pair[string, string]] describe(TagIds ids, cpp_bool keys_too) except +
        size_t size()

    cdef cppclass Terms:
        Terms()

        @staticmethod
        Terms of_tags(const vector[TagText]& tags) except +

        @staticmethod
        Terms of_selector(const vector[TagText]& terms) except +

        TagIds ids()
        uint32_t size()
        uint32_t exact()
        uint64_t hash()
        cpp_bool within(const Terms& whole)
        cpp_bool operator==(const Terms& other)


cdef extern from "posting.hpp" namespace "kumafast" nogil:
    cdef cppclass Block[T]:
        T* data()
        size_t size()
        cpp_bool has_ascending(T item)


cdef extern from "selector_set.hpp" namespace "kumafast" nogil:
    cdef cppclass SelectorEntry:
        uint32_t id
        Terms selector

    cdef cppclass Hit:
        uint32_t id
        uint32_t terms
        uint32_t exact

    cdef cppclass CSelectorSet "kumafast::SelectorSet":
        CSelectorSet() except +
        CSelectorSet(const vector[SelectorEntry]& entries) except +
        CSelectorSet added(const vector[SelectorEntry]& more) except +
        CSelectorSet removed(vector[uint32_t] gone) except +
        size_t size()
        void match(const vector[Terms]& inbounds, vector[Hit]& hits) except +


cdef extern from "tag_index.hpp" namespace "kumafast" nogil:
    cdef cppclass MatchRows:
        Block[uint32_t] selector_ids
        Block[uint64_t] offsets
        Block[uint32_t] ids

    cdef enum class Change:
        kAdd
        kUpdate
        kRemove

    cdef cppclass CTagIndex "kumafast::TagIndex":
        CTagIndex() except +
        cpp_bool change(Change change, uint32_t id, vector[Terms] inbounds) except +
        void shrink() except +
        size_t size()
        size_t bytes()
        cpp_bool contains(uint32_t id)
        void match(const Terms& selector, Block[uint32_t]& out) except +
        void affected(const Terms& before, const Terms& after, Block[uint32_t]& out) except +
        MatchRows match_all(const CSelectorSet& selectors) except +
