"""What is written while we look, again from wherever the log still reaches.

In: a store. Out: each change, or that changes were missed. Never: an end before the store's own.
"""

from __future__ import annotations

from collections.abc import Callable

from kumafast.errors import CompactedError
from kumafast.store import Change, Store


async def follow_changes(store: Store, *, changed: Callable[[Change], None], missed: Callable[[], None]) -> None:
    """Tell each change from now on, until the store is closed; `missed` where there were some that nobody can tell."""
    after = await store.revision()
    while True:
        try:
            async for commit in store.watch(after=after):
                after = commit.revision
                for change in commit.changes:
                    changed(change)
            return
        except CompactedError:
            after = await store.revision()
            missed()
