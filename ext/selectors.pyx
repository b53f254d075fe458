"""Tag sets, tag selectors, and the two indexes that match many of the one with many of the other.

In: mappings of str to str, ids chosen by the caller. Out: ids, as Python ints where few, as arrays where many.
Never: a tag kept after its last holder; Python objects in a loop over ids; a crash, whatever comes in.
"""

from collections.abc import Sequence

cimport cython
from border cimport exact_texts, id_of, number_of, utf8
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject, PyObject_Hash
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.utility cimport move, pair
from libcpp.vector cimport vector
from native cimport Block, Change, CSelectorSet, CTagIndex, Hit, MatchRows, SelectorEntry, TagTable, TagText, Terms
from native cimport string_view


cdef dict _NOTHING = {}


# The border: what comes in is checked in these functions, once, and nothing below checks again.

cdef int _read_tags(object tags, vector[TagText]& texts) except -1:
    """The texts point into the strings of `tags`, which must outlive them."""
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t size = 0
    cdef TagText text
    texts.reserve(len(tags))
    while PyDict_Next(tags, &at, &key, &value):
        text.key = string_view(utf8(<object>key, &size), size)
        text.value = string_view(utf8(<object>value, &size), size)
        text.key_hash = <uint64_t>PyObject_Hash(<object>key)
        text.value_hash = <uint64_t>PyObject_Hash(<object>value)
        texts.push_back(text)
    return 0


cdef dict _describe(const Terms& terms, bint keys_too):
    cdef pair[string, string] each
    return {each.first.decode(): each.second.decode() for each in TagTable.shared().describe(terms.ids(), keys_too)}


cdef int _read_inbounds(object inbounds, vector[Terms]& terms) except -1:
    if type(inbounds) is TagSet:
        terms.push_back((<TagSet>inbounds).terms)
        return 0
    if type(inbounds) is not tuple and (isinstance(inbounds, (str, bytes)) or not isinstance(inbounds, Sequence)):
        raise TypeError(f"inbounds must be a TagSet or a sequence of them, not {type(inbounds).__name__}")
    for inbound in tuple(inbounds):
        if type(inbound) is not TagSet:
            raise TypeError(f"an inbound must be a TagSet, not {type(inbound).__name__}")
        terms.push_back((<TagSet>inbound).terms)
    return 0


cdef int _read_selectors(object selectors, vector[SelectorEntry]& entries) except -1:
    cdef SelectorEntry entry
    for each in selectors:
        if not PyTuple_Check(each) or PyTuple_GET_SIZE(each) != 2:
            raise TypeError("each selector must come as a tuple (id, TagSelector)")
        if type((<tuple>each)[1]) is not TagSelector:
            raise TypeError(f"a selector must be a TagSelector, not {type((<tuple>each)[1]).__name__}")
        entry.id = id_of((<tuple>each)[0])
        entry.selector = (<TagSelector>(<tuple>each)[1]).terms
        entries.push_back(entry)
    return 0


@cython.final
cdef class TagSet:
    """One inbound's tags, prepared once; equal and hashed by content, immutable.

    `tags` maps str to str, without NUL and lone surrogates (ValueError). Interning costs O(bytes of the tags); the
    text of a tag is kept once for the process, for as long as anything holds that tag.

    >>> TagSet({"kuma.io/service": "web", "version": "v1"}).as_dict()
    {'kuma.io/service': 'web', 'version': 'v1'}
    """

    cdef Terms terms

    def __cinit__(self, tags=_NOTHING, /):
        cdef vector[TagText] texts
        checked = exact_texts(tags)
        _read_tags(checked, texts)
        self.terms = Terms.of_tags(texts)

    def as_dict(self):
        """The tags as a new dict, ordered by key."""
        return _describe(self.terms, False)

    def __len__(self):
        return self.terms.exact()

    def __eq__(self, other):
        return self.terms == (<TagSet>other).terms if type(other) is TagSet else NotImplemented

    def __hash__(self):
        return <Py_hash_t>self.terms.hash()

    def __repr__(self):
        return f"TagSet({self.as_dict()!r})"

    def __reduce__(self):
        return TagSet, (self.as_dict(),)


@cython.final
cdef class TagSelector:
    """What a policy asks of one inbound's tags: exact values; "*" for "the key is present"; {} for everything.

    Equal and hashed by content, immutable; the same rules for text as `TagSet`.

    >>> selector = TagSelector({"kuma.io/service": "web", "version": "*"})
    >>> selector.matches(TagSet({"kuma.io/service": "web", "version": "v2"}))
    True
    >>> selector.matches(TagSet({"kuma.io/service": "web"}))
    False
    >>> selector.rank
    (2, 1)
    """

    cdef Terms terms

    def __cinit__(self, match=_NOTHING, /):
        cdef vector[TagText] texts
        checked = exact_texts(match)
        _read_tags(checked, texts)
        self.terms = Terms.of_selector(texts)

    def matches(self, tags, /):
        """Whether one inbound with these tags satisfies this. O(tags of both)."""
        if type(tags) is not TagSet:
            raise TypeError(f"tags must be a TagSet, not {type(tags).__name__}")
        return self.terms.within((<TagSet>tags).terms)

    @property
    def rank(self):
        """(tags in the selector, of which exact); the greater tuple is the more specific selector."""
        return self.terms.size(), self.terms.exact()

    def as_dict(self):
        """The terms as a new dict, ordered by key."""
        return _describe(self.terms, True)

    def __len__(self):
        return self.terms.size()

    def __eq__(self, other):
        return self.terms == (<TagSelector>other).terms if type(other) is TagSelector else NotImplemented

    def __hash__(self):
        return <Py_hash_t>self.terms.hash()

    def __repr__(self):
        return f"TagSelector({self.as_dict()!r})"

    def __reduce__(self):
        return TagSelector, (self.as_dict(),)


@cython.final
cdef class SelectorSet:
    """Many selectors against one candidate; immutable.

    `selectors` yields (id, TagSelector); an id that comes several times has alternatives. Building is O(selectors).

    >>> policies = SelectorSet([(1, TagSelector({"env": "prod"})), (2, TagSelector({"env": "*"})), (3, TagSelector())])
    >>> policies.match(TagSet({"env": "prod"}))
    [(1, (1, 1)), (2, (1, 0)), (3, (0, 0))]
    >>> policies.removed([1]).match(TagSet({"env": "prod"}))
    [(2, (1, 0)), (3, (0, 0))]
    """

    cdef CSelectorSet inner

    def __cinit__(self, selectors=(), /):
        cdef vector[SelectorEntry] entries
        _read_selectors(selectors, entries)
        self.inner = CSelectorSet(entries)

    def match(self, inbounds, /):
        """Ascending (id, rank) of what one of the inbounds satisfies, with the best rank of an id's alternatives.

        A selector matches when ONE inbound has all its tags, never the union; {} matches even no inbounds.
        O(tags of the inbounds + selectors filed under them as their rarest tag + hits · log hits), whatever the number
        of selectors.
        """
        cdef vector[Hit] hits
        self._match(inbounds, hits)
        return [(hits[at].id, (hits[at].terms, hits[at].exact)) for at in range(hits.size())]

    def fingerprint(self, inbounds, /):
        """Bytes that are equal for two candidates, of two sets as well, exactly where `match` is: a key to keep by.

        12 bytes a hit, and none of the objects that `match` makes.

        >>> policies = SelectorSet([(1, TagSelector({"env": "prod"}))])
        >>> policies.fingerprint(TagSet({"env": "prod", "app": "a"})) == policies.fingerprint(TagSet({"env": "prod"}))
        True
        """
        cdef vector[Hit] hits
        self._match(inbounds, hits)
        return PyBytes_FromStringAndSize(<const char*>hits.data(), hits.size() * sizeof(Hit))

    cdef int _match(self, object inbounds, vector[Hit]& hits) except -1:
        cdef vector[Terms] terms
        _read_inbounds(inbounds, terms)
        self.inner.match(terms, hits)
        return 0

    def added(self, selectors, /):
        """A set that has these too; it shares with this one, which is unchanged. O(√selectors) amortised.

        An id that is there already gets a further alternative.
        """
        cdef vector[SelectorEntry] entries
        _read_selectors(selectors, entries)
        return _selector_set(self.inner.added(entries))

    def removed(self, ids, /):
        """A set without these ids and all their alternatives; unknown ids are ignored. O(√selectors) amortised."""
        cdef vector[uint32_t] gone
        for id in ids:
            gone.push_back(id_of(id))
        return _selector_set(self.inner.removed(gone))

    def __len__(self):
        """Distinct ids."""
        return self.inner.size()

    def __repr__(self):
        return f"<SelectorSet of {len(self)} ids>"


cdef SelectorSet _selector_set(CSelectorSet made):
    cdef SelectorSet derived = SelectorSet.__new__(SelectorSet)
    derived.inner = move(made)
    return derived


@cython.final
cdef class _Numbers:
    """An array of the core, lent to memoryviews; freed with the last of them."""

    cdef Block[uint32_t] narrow
    cdef Block[uint64_t] wide
    cdef Py_ssize_t item_size
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the array is read-only")
        cdef void* data
        if self.item_size == sizeof(uint32_t):
            data = self.narrow.data()
            self.shape[0] = self.narrow.size()
        else:
            data = self.wide.data()
            self.shape[0] = self.wide.size()
        self.strides[0] = self.item_size
        view.buf = data if data != NULL else <void*>self.shape
        view.obj = self
        view.len = self.shape[0] * self.item_size
        view.itemsize = self.item_size
        view.readonly = 1
        view.ndim = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"I" if self.item_size == sizeof(uint32_t) else b"Q"
        view.shape = &self.shape[0] if flags & PyBUF_ND else <Py_ssize_t*>NULL
        view.strides = &self.strides[0] if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else <Py_ssize_t*>NULL
        view.suboffsets = NULL
        view.internal = NULL


cdef _Numbers _narrow(Block[uint32_t]& block):
    cdef _Numbers made = _Numbers.__new__(_Numbers)
    made.item_size = sizeof(uint32_t)
    made.narrow = move(block)
    return made


cdef _Numbers _wide(Block[uint64_t]& block):
    cdef _Numbers made = _Numbers.__new__(_Numbers)
    made.item_size = sizeof(uint64_t)
    made.wide = move(block)
    return made


@cython.final
cdef class IdSet:
    """A set of ids, kept as one ascending array: iteration, len(), in, ==, hash(). Made by `TagIndex`; immutable.

    >>> index = TagIndex([(7, TagSet({"env": "prod"})), (3, TagSet({"env": "prod"}))])
    >>> found = index.match(TagSelector({"env": "prod"}))
    >>> list(found), 7 in found, found.to_array().tolist()
    ([3, 7], True, [3, 7])
    """

    cdef _Numbers numbers

    def __cinit__(self):
        cdef Block[uint32_t] none
        self.numbers = _narrow(none)

    def to_array(self):
        """The ids as a read-only memoryview, format "I", ascending. O(1): no copy, no Python int."""
        return memoryview(self.numbers)

    def __iter__(self):
        cdef _Numbers numbers = self.numbers
        cdef size_t at
        for at in range(numbers.narrow.size()):
            yield numbers.narrow.data()[at]

    def __len__(self):
        return self.numbers.narrow.size()

    def __contains__(self, id):
        cdef int64_t number = number_of(id)
        return number >= 0 and self.numbers.narrow.has_ascending(<uint32_t>number)

    def __eq__(self, other):
        return self.to_array() == (<IdSet>other).to_array() if type(other) is IdSet else NotImplemented

    def __hash__(self):
        return hash(self.to_array().tobytes())

    def __repr__(self):
        return f"<IdSet of {len(self)} ids>"


cdef IdSet _id_set(Block[uint32_t]& ids):
    cdef IdSet made = IdSet.__new__(IdSet)
    made.numbers = _narrow(ids)
    return made


@cython.final
cdef class Matches:
    """Who matches whom, as compressed rows of read-only memoryviews. Made by `TagIndex.match_all`; immutable.

    `selector_ids` ("I"): the distinct ids of the SelectorSet, ascending, each with a row even when it is empty.
    `offsets` ("Q"): len(selector_ids) + 1. `ids` ("I"): row i is ids[offsets[i]:offsets[i + 1]], ascending.
    """

    cdef readonly object selector_ids
    cdef readonly object offsets
    cdef readonly object ids

    def __cinit__(self):
        self.selector_ids = self.offsets = self.ids = memoryview(b"")

    def __len__(self):
        """len(ids): how many pairs match."""
        return len(self.ids)

    def __repr__(self):
        return f"<Matches of {len(self.selector_ids)} selectors, {len(self)} pairs>"


@cython.final
cdef class TagIndex:
    """Many dataplanes against one selector, or against all. Mutable: one writer, any number of readers.

    `dataplanes` yields (id, inbounds); ids are 0 … 2**32-1 and best dense (an id far from all others costs memory in
    proportion to its tags, no more). A reader in another thread sees a change wholly or not at all.

    >>> index = TagIndex([(1, TagSet({"app": "web"})), (2, [TagSet({"app": "db"}), TagSet({"app": "cache"})])])
    >>> list(index.match(TagSelector({"app": "*"})))
    [1, 2]
    >>> index.update(1, TagSet({"app": "db"}))
    >>> list(index.affected(TagSelector({"app": "db"}), TagSelector({"app": "cache"})))
    [1]
    """

    cdef CTagIndex inner
    cdef int batches  # running without the GIL in other threads; touched only with it

    def __cinit__(self, dataplanes=(), /):
        for each in dataplanes:
            if not PyTuple_Check(each) or PyTuple_GET_SIZE(each) != 2:
                raise TypeError("each dataplane must come as a tuple (id, inbounds)")
            self.add((<tuple>each)[0], (<tuple>each)[1])
        self.inner.shrink()

    cdef int _change(self, Change change, object id, vector[Terms]& inbounds) except -1:
        cdef uint32_t number = id_of(id)
        cdef cpp_bool done
        # A batch may hold the index for milliseconds: the interpreter must not wait for it with its lock in hand.
        if self.batches == 0:
            done = self.inner.change(change, number, move(inbounds))
        else:
            with nogil:
                done = self.inner.change(change, number, move(inbounds))
        if not done:
            raise KeyError(id)
        return 0

    def add(self, id, inbounds, /):
        """Index a new dataplane; KeyError if its id is there. O(its tags)."""
        cdef vector[Terms] terms
        _read_inbounds(inbounds, terms)
        self._change(Change.kAdd, id, terms)

    def update(self, id, inbounds, /):
        """Replace a dataplane's inbounds; KeyError if its id is not there. O(tags of both)."""
        cdef vector[Terms] terms
        _read_inbounds(inbounds, terms)
        self._change(Change.kUpdate, id, terms)

    def remove(self, id, /):
        """Forget a dataplane; KeyError if its id is not there. O(its tags)."""
        cdef vector[Terms] none
        self._change(Change.kRemove, id, none)

    def match(self, selector, /):
        """The ids with one inbound that satisfies `selector`. O(dataplanes that have its rarest tag)."""
        cdef Block[uint32_t] ids
        if type(selector) is not TagSelector:
            raise TypeError(f"selector must be a TagSelector, not {type(selector).__name__}")
        self.inner.match((<TagSelector>selector).terms, ids)
        return _id_set(ids)

    def match_all(self, selectors, /):
        """Every selector's row of ids, without the GIL. O(pairs that match + selectors), 4 bytes for each pair.

        >>> index = TagIndex([(1, TagSet({"app": "web"})), (2, TagSet({"app": "db"}))])
        >>> rows = index.match_all(SelectorSet([(10, TagSelector({"app": "db"})), (20, TagSelector())]))
        >>> rows.selector_ids.tolist(), rows.offsets.tolist(), rows.ids.tolist()
        ([10, 20], [0, 1, 3], [2, 1, 2])
        """
        cdef MatchRows rows
        if type(selectors) is not SelectorSet:
            raise TypeError(f"selectors must be a SelectorSet, not {type(selectors).__name__}")
        self.batches += 1
        try:
            with nogil:
                rows = self.inner.match_all((<SelectorSet>selectors).inner)
        finally:
            self.batches -= 1
        cdef Matches found = Matches.__new__(Matches)
        found.selector_ids = memoryview(_narrow(rows.selector_ids))
        found.offsets = memoryview(_wide(rows.offsets))
        found.ids = memoryview(_narrow(rows.ids))
        return found

    def affected(self, old, new, /):
        """The ids that exactly one of two selectors matches; None matches nothing. Releases the GIL.

        Equal selectors affect nobody, at once; else O(dataplanes that have the rarest tag of either).
        """
        cdef Terms before
        cdef Terms after
        cdef Block[uint32_t] ids
        for selector in (old, new):
            if selector is not None and type(selector) is not TagSelector:
                raise TypeError(f"a selector must be a TagSelector or None, not {type(selector).__name__}")
        if old is not None:
            before = (<TagSelector>old).terms
        if new is not None:
            after = (<TagSelector>new).terms
        self.batches += 1
        try:
            with nogil:
                self.inner.affected(before, after, ids)
        finally:
            self.batches -= 1
        return _id_set(ids)

    def __len__(self):
        return self.inner.size()

    def __contains__(self, id):
        cdef int64_t number = number_of(id)
        return number >= 0 and self.inner.contains(<uint32_t>number)

    def __sizeof__(self):
        """Bytes held, the tag lists of the dataplanes included; the process-wide table of tags is not."""
        return object.__sizeof__(self) + self.inner.bytes()

    def __repr__(self):
        return f"<TagIndex of {len(self)} dataplanes>"


def live_tags():
    """How many different tags and keys the process holds: for tests that look for leaks."""
    return TagTable.shared().size()
