"""Changes of what is stored, each over just what it was made from, several in a commit.

In: keys, and what to make of what is held under them. Out: writes. Never: a change that was made from something else
than what it replaces; the loss of one because of another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from kumafast.errors import ConflictError, NotFoundError
from kumafast.resources import Resource, ResourceKey
from kumafast.store import Put, Store

_LOG = logging.getLogger(__name__)

COMMIT_MAX = 64
"""How many resources go into one commit: whoever writes meanwhile waits for one commit, and the loop for as many."""

Make = Callable[[ResourceKey, Resource | None], Resource | None]
"""What is to be kept instead of what is held, which is None where there is nothing; None to leave it."""


async def change(store: Store, keys: Sequence[ResourceKey], make: Make) -> None:
    """Write what `make` makes of each, in one commit unless somebody else writes one of them just then.

    Raises the store's errors, but for what is not there, or not any more, which is left out.
    """
    puts = [put for key in keys if (put := await _put_of(store, key, make)) is not None]
    if not puts:
        return
    try:
        await store.write(puts)
    except (NotFoundError, ConflictError):
        # What one of them belongs to was deleted, or never put, or another instance has just written it: the others
        # must not suffer from it.
        for put in puts:
            await _change_alone(store, put.resource.key, make)


async def _change_alone(store: Store, key: ResourceKey, make: Make) -> None:
    while (put := await _put_of(store, key, make)) is not None:
        try:
            await store.write([put])
        except ConflictError:
            continue
        except NotFoundError:
            _LOG.debug("no place for %s %s in mesh %s", key.type, key.name, key.mesh)
        return


async def _put_of(store: Store, key: ResourceKey, make: Make) -> Put | None:
    held: Resource | None = None
    revision = 0
    try:
        stored = await store.get(key)
    except NotFoundError:
        pass
    else:
        held, revision = stored.resource, stored.revision
    made = make(key, held)
    return None if made is None or made == held else Put(made, expected_revision=revision)
