"""The door of the streams: what whoever judges clients is told of them, and how it says no.

In: nothing. Out: the form of a judge. Never: tokens, or what makes a client a good one; that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kumafast.snapshot.node import Node


class UnauthenticatedError(Exception):
    """Nobody knows that the client is who it says; its call ends with UNAUTHENTICATED and this message."""


class PermissionDeniedError(Exception):
    """The client may not have what it asks for; its call ends with PERMISSION_DENIED and this message."""


End: TypeAlias = Callable[[str], None]
Authenticate: TypeAlias = Callable[[str, Node, End], Callable[[], None]]
"""`authenticate(authorization, node, end)` lets a stream in, or raises `UnauthenticatedError`.

`authorization` is that header of its request, empty where there is none; `node` is that of the first message. Until
what is returned is called, when the stream is over, `end(why)` ends it with UNAUTHENTICATED.
"""

Authorize: TypeAlias = Callable[[str], None]
"""Judges the header `authorization` of a call that is about no node. Raises one of the two errors."""
