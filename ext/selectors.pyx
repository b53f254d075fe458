# distutils: language = c++
"""Tag sets, selectors and the two indexes that match them."""

from array import array
from collections.abc import Iterable, Mapping, Sequence


cdef dict _checked(object tags):
    cdef dict found = {}
    if not isinstance(tags, Mapping):
        raise TypeError(f"tags must be a mapping of str to str, not {type(tags).__name__}")
    for key, value in dict(tags).items():
        for text in (key, value):
            if not isinstance(text, str):
                raise TypeError(f"a tag's key and value must be str, not {type(text).__name__}")
            text.encode()
            if "\0" in text:
                raise ValueError("a tag must not contain NUL")
        found[str(key)] = str(value)
    return found


cdef object _checked_id(object id):
    if not isinstance(id, int):
        raise TypeError(f"an id must be an int, not {type(id).__name__}")
    if not 0 <= id < 2**32:
        raise OverflowError("an id must be in 0 … 2**32-1")
    return int(id)


cdef tuple _checked_inbounds(object inbounds):
    if isinstance(inbounds, TagSet):
        return (inbounds,)
    if not isinstance(inbounds, Sequence):
        raise TypeError(f"inbounds must be a TagSet or a sequence of them, not {type(inbounds).__name__}")
    for inbound in inbounds:
        if not isinstance(inbound, TagSet):
            raise TypeError(f"an inbound must be a TagSet, not {type(inbound).__name__}")
    return tuple(inbounds)


cdef class TagSet:
    cdef dict tags
    cdef object frozen

    def __cinit__(self, tags={}, /):
        self.tags = _checked(tags)
        self.frozen = frozenset(self.tags.items())

    def as_dict(self):
        return dict(self.tags)

    def __len__(self):
        return len(self.tags)

    def __eq__(self, other):
        return self.tags == (<TagSet>other).tags if isinstance(other, TagSet) else NotImplemented

    def __hash__(self):
        return hash(self.frozen)

    def __repr__(self):
        return f"TagSet({self.tags!r})"


cdef class TagSelector:
    cdef dict terms

    def __cinit__(self, match={}, /):
        self.terms = _checked(match)

    def matches(self, TagSet tags not None, /):
        return all(k in tags.tags and (v == "*" or tags.tags[k] == v) for k, v in self.terms.items())

    @property
    def rank(self):
        return len(self.terms), sum(v != "*" for v in self.terms.values())

    def as_dict(self):
        return dict(self.terms)

    def __len__(self):
        return len(self.terms)

    def __eq__(self, other):
        return self.terms == (<TagSelector>other).terms if isinstance(other, TagSelector) else NotImplemented

    def __hash__(self):
        return hash(frozenset(self.terms.items()))

    def __repr__(self):
        return f"TagSelector({self.terms!r})"


cdef bint _matches(TagSelector selector, tuple inbounds):
    return not selector.terms or any(selector.matches(inbound) for inbound in inbounds)


cdef class SelectorSet:
    cdef dict selectors

    def __cinit__(self, selectors=(), /):
        self.selectors = {}
        if not isinstance(selectors, Iterable):
            raise TypeError("selectors must be an iterable of (id, TagSelector)")
        for pair in selectors:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError("each selector must be a tuple of (id, TagSelector)")
            id, selector = pair
            if not isinstance(selector, TagSelector):
                raise TypeError(f"a selector must be a TagSelector, not {type(selector).__name__}")
            self.selectors.setdefault(_checked_id(id), []).append(selector)

    def match(self, inbounds, /):
        cdef tuple checked = _checked_inbounds(inbounds)
        found = []
        for id in sorted(self.selectors):
            ranks = [s.rank for s in self.selectors[id] if _matches(s, checked)]
            if ranks:
                found.append((id, max(ranks)))
        return found

    def added(self, selectors, /):
        return SelectorSet([(i, s) for i, each in self.selectors.items() for s in each] + list(selectors))

    def removed(self, ids, /):
        gone = {_checked_id(id) for id in ids}
        return SelectorSet([(i, s) for i, each in self.selectors.items() for s in each if i not in gone])

    def __len__(self):
        return len(self.selectors)


cdef class IdSet:
    cdef object ids

    def __cinit__(self):
        self.ids = array("I")

    def to_array(self):
        return memoryview(self.ids).toreadonly()

    def __iter__(self):
        return iter(self.ids.tolist())

    def __len__(self):
        return len(self.ids)

    def __contains__(self, id):
        return isinstance(id, int) and id in self.ids

    def __eq__(self, other):
        return self.ids == (<IdSet>other).ids if isinstance(other, IdSet) else NotImplemented

    def __hash__(self):
        return hash(self.ids.tobytes())

    def __repr__(self):
        return f"IdSet({self.ids.tolist()!r})"


cdef IdSet _id_set(object ids):
    cdef IdSet found = IdSet.__new__(IdSet)
    found.ids = array("I", sorted(ids))
    return found


cdef class Matches:
    cdef readonly object selector_ids
    cdef readonly object offsets
    cdef readonly object ids

    def __len__(self):
        return len(self.ids)


cdef class TagIndex:
    cdef dict dataplanes
    cdef object __weakref__

    def __cinit__(self, dataplanes=(), /):
        self.dataplanes = {}
        for pair in dataplanes:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError("each dataplane must be a tuple of (id, inbounds)")
            self.add(pair[0], pair[1])

    def add(self, id, inbounds, /):
        id = _checked_id(id)
        checked = _checked_inbounds(inbounds)
        if id in self.dataplanes:
            raise KeyError(id)
        self.dataplanes[id] = checked

    def update(self, id, inbounds, /):
        id = _checked_id(id)
        checked = _checked_inbounds(inbounds)
        if id not in self.dataplanes:
            raise KeyError(id)
        self.dataplanes[id] = checked

    def remove(self, id, /):
        del self.dataplanes[_checked_id(id)]

    cdef set _found(self, TagSelector selector):
        if selector is None:
            return set()
        return {id for id, inbounds in self.dataplanes.items() if _matches(selector, inbounds)}

    def match(self, TagSelector selector not None, /):
        return _id_set(self._found(selector))

    def match_all(self, SelectorSet selectors not None, /):
        cdef Matches found = Matches.__new__(Matches)
        ids = array("I")
        offsets = array("Q", [0])
        for id in sorted(selectors.selectors):
            row = set()
            for selector in selectors.selectors[id]:
                row |= self._found(selector)
            ids.extend(sorted(row))
            offsets.append(len(ids))
        found.selector_ids = memoryview(array("I", sorted(selectors.selectors))).toreadonly()
        found.offsets = memoryview(offsets).toreadonly()
        found.ids = memoryview(ids).toreadonly()
        return found

    def affected(self, TagSelector old, TagSelector new, /):
        return _id_set(self._found(old) ^ self._found(new))

    def __len__(self):
        return len(self.dataplanes)

    def __contains__(self, id):
        return isinstance(id, int) and id in self.dataplanes
