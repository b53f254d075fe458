"""Which nodes somebody asks about: `envoy.type.matcher.v3.NodeMatcher`, as CSDS has it.

In: matchers of an untrusted client, nodes. Out: whether a node is meant. Never: a regular expression, since one of a
stranger's making can hold up the loop for ever; nor a matcher that is half understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envoy.type.matcher.v3 import node_pb2, string_pb2, struct_pb2, value_pb2

from kumafast.snapshot.node import Node

NodePredicate = Callable[[Node], bool]
_ValuePredicate = Callable[[object], bool]

# What stands for a field that is not there, as against one that is null.
_ABSENT = object()


class MatcherError(ValueError):
    """A matcher that cannot be served; the message says why."""


def node_predicate(matchers: Iterable[node_pb2.NodeMatcher]) -> NodePredicate:
    """Whether any of the matchers, or there being none, means a node. Raises `MatcherError`.

    Within a matcher the id and all metadata must match.
    """
    predicates = [_node(matcher) for matcher in matchers]
    if not predicates:
        return lambda _: True
    return lambda node: any(predicate(node) for predicate in predicates)


def _node(matcher: node_pb2.NodeMatcher) -> NodePredicate:
    of_id = _string(matcher.node_id) if matcher.HasField("node_id") else None
    of_metadata = [_struct(each) for each in matcher.node_metadatas]

    def matches(node: Node) -> bool:
        return (of_id is None or of_id(node.id)) and all(predicate(node.metadata) for predicate in of_metadata)

    return matches


def _struct(matcher: struct_pb2.StructMatcher) -> _ValuePredicate:
    keys = [segment.key for segment in matcher.path]
    if not keys:
        raise MatcherError("a matcher of metadata must have a path")
    predicate = _value(matcher.value)

    def matches(metadata: object) -> bool:
        found = metadata
        for key in keys:
            found = found.get(key, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        return predicate(found)

    return matches


def _value(matcher: value_pb2.ValueMatcher) -> _ValuePredicate:
    kind = matcher.WhichOneof("match_pattern")
    if kind not in _OF_KIND:
        raise MatcherError("a matcher of a value must say what it matches")
    return _OF_KIND[kind](getattr(matcher, kind))


def _string(matcher: string_pb2.StringMatcher) -> Callable[[object], bool]:
    kind = matcher.WhichOneof("match_pattern")
    if kind not in _OF_TEXT:
        raise MatcherError(
            f"a matcher of text by {kind or 'nothing'} is not served; use exact, prefix, suffix or contains"
        )
    compare, pattern = _OF_TEXT[kind], getattr(matcher, kind)
    if matcher.ignore_case:
        pattern = pattern.lower()
        return lambda text: isinstance(text, str) and compare(text.lower(), pattern)
    return lambda text: isinstance(text, str) and compare(text, pattern)


def _number(matcher: Any) -> _ValuePredicate:
    if matcher.WhichOneof("match_pattern") == "range":
        start, end = matcher.range.start, matcher.range.end
        return lambda value: _is_number(value) and start <= value < end
    exact = matcher.exact
    return lambda value: _is_number(value) and value == exact


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _present(wanted: bool) -> _ValuePredicate:
    return lambda value: (value is not _ABSENT) == wanted


def _list(matcher: value_pb2.ListMatcher) -> _ValuePredicate:
    predicate = _value(matcher.one_of)
    return lambda value: isinstance(value, list) and any(predicate(item) for item in value)


def _any(matcher: value_pb2.OrMatcher) -> _ValuePredicate:
    predicates = [_value(each) for each in matcher.value_matchers]
    return lambda value: any(predicate(value) for predicate in predicates)


_OF_TEXT: Mapping[str | None, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}
_OF_KIND: Mapping[str | None, Callable[[Any], _ValuePredicate]] = {
    "null_match": lambda _: lambda value: value is None,
    "double_match": _number,
    "string_match": _string,
    "bool_match": lambda wanted: lambda value: value is wanted,
    "present_match": _present,
    "list_match": _list,
    "or_match": _any,
}
