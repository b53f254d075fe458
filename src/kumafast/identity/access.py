"""Users and what they may do.

In: a user, what a request needs. Out: whether it may. Never: how a user proved who it is.

| role | by | may |
|---|---|---|
| admin | the group `mesh-system:admin` | everything |
| mesh editor | the group `mesh-editor:<mesh>` | read, and write what is in that mesh, but for its secrets |
| read-only | any other user | read, but for secrets, tokens and the dumps of proxies |
| anonymous | no token, from elsewhere | by the setting `anonymous_access`: nothing, read, or what Kuma lets them |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ADMIN_GROUP = "mesh-system:admin"
AUTHENTICATED_GROUP = "mesh-system:authenticated"
UNAUTHENTICATED_GROUP = "mesh-system:unauthenticated"
EDITOR_PREFIX = "mesh-editor:"


class AnonymousAccess(Enum):
    """What somebody without a token may do from another machine. `WRITE` is what Kuma lets them."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who asks for something."""

    name: str
    groups: tuple[str, ...]


ADMIN = User("mesh-system:admin", (ADMIN_GROUP, AUTHENTICATED_GROUP))
ANONYMOUS = User("mesh-system:anonymous", (UNAUTHENTICATED_GROUP,))


class Right(Enum):
    """What a request needs of its user."""

    NOTHING = "nothing"
    READ = "read"
    WRITE = "write"
    ADMIN = "administer"


def is_allowed(user: User, right: Right, *, mesh: str = "", anonymous: AnonymousAccess) -> bool:
    """Whether a user has a right; `mesh` is the one that is written in, empty for meshes and what belongs to none."""
    if right is Right.NOTHING or ADMIN_GROUP in user.groups:
        return True
    if UNAUTHENTICATED_GROUP in user.groups:
        return _is_anonymous_allowed(right, anonymous)
    if right is Right.READ:
        return True
    return right is Right.WRITE and bool(mesh) and f"{EDITOR_PREFIX}{mesh}" in user.groups


def _is_anonymous_allowed(right: Right, anonymous: AnonymousAccess) -> bool:
    if right is Right.READ:
        return anonymous is not AnonymousAccess.NONE
    return right is Right.WRITE and anonymous is AnonymousAccess.WRITE
