"""Dataplanes whose Envoy was launched and has just begun to listen.

In: a proxy's first acknowledgement of its listeners. Out: its dataplane without the label that keeps clients away.
Never: any other change of what a user wrote.
"""

from __future__ import annotations

import asyncio
import logging

from kumafast.errors import ConflictError, KumafastError, NotFoundError, StoreUnavailableError
from kumafast.resources import Dataplane, ResourceKey
from kumafast.resources.fields import FrozenMap
from kumafast.resources.tags import AWAITS_PROXY_LABEL
from kumafast.store import Store, StoredResource

RETRY_S = 1.0
"""The pause between attempts while the store cannot be written."""

_LOG = logging.getLogger(__name__)


class Arrivals:
    """Opens launched dataplanes to clients once their Envoys listen."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The loop keeps no reference to its tasks; bounded by the proxies that arrive at once.
        self._tasks: set[asyncio.Task[None]] = set()

    def listeners_taken(self, mesh: str, name: str) -> None:
        """A proxy has acknowledged listeners; from now on it may be sent requests."""
        task = asyncio.get_running_loop().create_task(self._admit(ResourceKey(Dataplane.type.name, mesh, name)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def admit_all(self) -> None:
        """Admit all who wait: this instance has just started and cannot know who listened before."""
        for stored in (await self._store.list(Dataplane.type.name)).items:
            if _waits(stored):
                self.listeners_taken(stored.resource.mesh, stored.resource.name)
        await self.finish()

    async def finish(self) -> None:
        """Return when those who were named have been admitted."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _admit(self, key: ResourceKey) -> None:
        try:
            while _waits(stored := await self._store.get(key)):
                try:
                    await self._store.put(_admitted(stored), expected_revision=stored.revision)
                except ConflictError:
                    continue
                except StoreUnavailableError as error:
                    # The store has said why, once.
                    _LOG.debug("%s in mesh %s listens; it is opened to clients later: %s", key.name, key.mesh, error)
                    await asyncio.sleep(RETRY_S)
        except NotFoundError:
            return
        except KumafastError as error:
            _LOG.warning("%s in mesh %s listens, but cannot be opened to clients: %s", key.name, key.mesh, error)


def _waits(stored: StoredResource) -> bool:
    return AWAITS_PROXY_LABEL in stored.resource.labels


def _admitted(stored: StoredResource) -> Dataplane:
    dataplane = stored.resource
    assert isinstance(dataplane, Dataplane)
    labels = {key: value for key, value in dataplane.labels.items() if key != AWAITS_PROXY_LABEL}
    return dataplane.model_copy(update={"labels": FrozenMap(labels)})
