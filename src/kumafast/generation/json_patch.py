"""JSON patches (RFC 6902) of Envoy's messages, as Kuma applies them.

In: a message or a JSON value, operations. Out: the same, patched. Never: `test`, which Kuma does not have.
Source of what goes beyond the RFC: the library that Kuma 2.14 uses, with the options that it sets. What is to be
removed may be missing, what is added makes the objects and lists that lead to it, and a negative index counts from the
end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.message import Message

from kumafast.errors import ModificationError
from kumafast.resources.envoy_messages import from_json
from kumafast.resources.fields import thaw

Operation: TypeAlias = Mapping[str, Any]
"""`op`, `path`, and `value` or `from` as the operation needs it."""

_END = "-"


def patch_message(message: Message, operations: Iterable[Operation]) -> None:
    """Change a message in place. Raises `ModificationError` where a path is not there or the outcome is no message."""
    tree = patched(json_format.MessageToDict(message), operations)
    try:
        changed = from_json(tree, type(message)())
    except ValueError as error:
        raise ModificationError(f"what the patch makes is no {message.DESCRIPTOR.name}: {error}") from error
    message.CopyFrom(changed)


def patched(tree: Any, operations: Iterable[Operation]) -> Any:
    """A JSON value after all operations; it is changed in place where it can be.

    >>> patched({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}, {"op": "move", "from": "/a/0", "path": "/b/c"}])
    {'a': [2], 'b': {'c': 1}}
    """
    holder = {"": tree}
    for operation in operations:
        _apply(holder, operation)
    return holder[""]


def _apply(holder: dict[str, Any], operation: Operation) -> None:
    path, kind = _tokens(operation["path"]), operation["op"]
    if kind == "add":
        _add(holder, path, thaw(operation.get("value")))
    elif kind == "remove":
        _remove(holder, path)
    elif kind == "replace":
        parent, token = _parent(holder, path)
        parent[_present(parent, token, path)] = thaw(operation.get("value"))
    else:
        source = _tokens(operation["from"])
        parent, token = _parent(holder, source)
        value = copy.deepcopy(parent[_present(parent, token, source)])
        if kind == "move":
            _remove(holder, source)
        _add(holder, path, value)


def _tokens(path: str) -> list[str]:
    """The names and indexes that lead to a place, from the root, whose name is empty."""
    if path and not path.startswith("/"):
        raise ModificationError(f"{path} is no JSON pointer: it must begin with a slash")
    # As in Kuma a single slash is the root too.
    parts = [] if path == "/" else path.split("/")[1:]
    return ["", *(part.replace("~1", "/").replace("~0", "~") for part in parts)]


def _parent(holder: Any, tokens: list[str]) -> tuple[Any, str]:
    node = holder
    for token in tokens[:-1]:
        node = node[_present(node, token, tokens)]
    return node, tokens[-1]


def _present(node: Any, token: str, tokens: list[str]) -> Any:
    """The key or index of something that is there."""
    if isinstance(node, dict) and token in node:
        return token
    if isinstance(node, list):
        index = _index(token, len(node), tokens)
        if -len(node) <= index < len(node):
            return index
    raise ModificationError(f"there is nothing at {'/'.join(tokens)}")


def _index(token: str, length: int, tokens: list[str]) -> int:
    if token == _END:
        return length
    try:
        return int(token)
    except ValueError:
        raise ModificationError(f"{token} in {'/'.join(tokens)} is no index of a list") from None


def _add(holder: Any, tokens: list[str], value: Any) -> None:
    node = holder
    for token, following in pairwise(tokens):
        child = _child(node, token, tokens)
        if child is None:
            child = [] if following == _END or following.lstrip("-").isdigit() else {}
            _put(node, token, child, tokens, replaces=True)
        node = child
    _put(node, tokens[-1], value, tokens, replaces=isinstance(node, dict))


def _child(node: Any, token: str, tokens: list[str]) -> Any:
    if isinstance(node, dict):
        return node.get(token)
    if isinstance(node, list):
        index = _index(token, len(node), tokens)
        return node[index] if -len(node) <= index < len(node) else None
    raise ModificationError(f"{'/'.join(tokens)} leads through a value that has no parts")


def _put(node: Any, token: str, value: Any, tokens: list[str], *, replaces: bool) -> None:
    if isinstance(node, dict):
        node[token] = value
        return
    if not isinstance(node, list):
        raise ModificationError(f"{'/'.join(tokens)} leads through a value that has no parts")
    index = _index(token, len(node), tokens)
    if not -len(node) <= index <= len(node):
        raise ModificationError(f"{'/'.join(tokens)} is beyond the end of its list")
    if replaces and index < len(node):
        node[index] = value
    else:
        node.insert(index, value)


def _remove(holder: Any, tokens: list[str]) -> None:
    try:
        parent, token = _parent(holder, tokens)
        del parent[_present(parent, token, tokens)]
    except ModificationError:
        # What is not there need not be removed.
        return
