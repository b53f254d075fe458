"""The steps from one authority to another, each once the one before has reached the proxies.

In: commits of meshes and secrets, a way to wait until the connected proxies have what is stored. Out: `Trust`, stored.
Never: a step that a proxy without the last one could notice as a broken connection; what a proxy is sent.

Every step is a write with an expected revision, so that of several instances that see the same, one takes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from kumafast.errors import CompactedError, ConflictError, KumafastError, NotFoundError
from kumafast.identity import backends
from kumafast.identity.authority import AuthorityError
from kumafast.identity.trust import Trust, trust_name
from kumafast.resources import Mesh, ResourceKey, Secret
from kumafast.store import Store, StoredResource

_LOG = logging.getLogger(__name__)

Converged = Callable[[int], Awaitable[bool]]
"""Waits until the connected proxies have what is stored at a revision; False where some do not take it in time."""

_RETRY_S = 1.0
_SLEEP_MAX_S = 3600.0


class Rollout:
    """Brings each mesh's trust to what its Mesh asks for."""

    def __init__(self, *, store: Store, converged: Converged) -> None:
        self._store = store
        self._converged = converged
        # One task for each mesh with TLS that is on its way or waits for an old authority's end.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    async def follow(self) -> None:
        """Take steps as they become due, until cancelled."""
        try:
            while True:
                try:
                    revision = await self._start_all()
                    async for commit in self._store.watch(after=revision):
                        for change in commit.changes:
                            if change.key.type == Mesh.type.name:
                                self._start(change.key.name)
                            elif change.key.type == Secret.type.name:
                                self._start(change.key.mesh)
                    return
                except CompactedError:
                    continue
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_all(self) -> int:
        listing = await self._store.list(Mesh.type.name)
        for stored in listing.items:
            self._start(stored.resource.name)
        return listing.revision

    def _start(self, mesh: str) -> None:
        running = self._tasks.get(mesh)
        if running is not None:
            self._again.add(mesh)
            if running.get_name() == "waiting":
                running.cancel()
            return
        task = self._tasks[mesh] = asyncio.create_task(self._advance(mesh), name="rollout")
        task.add_done_callback(lambda _: self._note_end(mesh))

    def _note_end(self, mesh: str) -> None:
        self._tasks.pop(mesh, None)
        if mesh in self._again:
            self._again.discard(mesh)
            self._start(mesh)

    async def _advance(self, mesh: str) -> None:
        while True:
            try:
                wait_s = await self.step(mesh)
            except ConflictError:
                # Somebody else took the step.
                continue
            except NotFoundError:
                return
            except KumafastError as error:
                _LOG.warning("mesh %s: its authority cannot move on: %s", mesh, error)
                wait_s = _RETRY_S
            if wait_s is None:
                return
            if wait_s > 0:
                task = asyncio.current_task()
                assert task is not None
                # From here on news of the mesh may end the wait.
                task.set_name("waiting")
                await asyncio.sleep(min(wait_s, _SLEEP_MAX_S))
                task.set_name("rollout")

    async def step(self, mesh: str) -> float | None:
        """Take the step that is due; in how many seconds the next one is, None where there is none.

        Raises `NotFoundError` where the mesh is gone, `ConflictError` where somebody else was faster.
        """
        stored = (await self._store.get(ResourceKey(Mesh.type.name, "", mesh))).resource
        assert isinstance(stored, Mesh)
        backend = backends.enabled_backend(stored)
        if backend is None:
            return None
        secrets = {each.resource.name: each for each in (await self._store.list(Secret.type.name, mesh)).items}
        try:
            wanted = backends.load_backend(mesh, backend, lambda name: _content(secrets, name))
        except AuthorityError:
            # Said where it is used; a change of the Mesh or of its secrets comes back here.
            return None
        held = secrets.get(trust_name(mesh))
        now = datetime.now(UTC)
        if held is None:
            await self._put(mesh, Trust.of(backend, wanted), 0)
            return 0.0
        trust = Trust.from_content(_content(secrets, trust_name(mesh)) or b"")
        if not trust.trusts(wanted.digest):
            _LOG.info("mesh %s: proxies come to trust the authority of backend %s", mesh, backend.name)
            await self._reach(mesh, await self._put(mesh, trust.with_authority(wanted), held.revision))
            return 0.0
        if trust.digest != wanted.digest or trust.backend != backend:
            is_move = trust.digest != wanted.digest
            if is_move:
                # Also after a restart in the middle: that it was stored does not say that it has arrived.
                await self._reach(mesh, held.revision)
            lifetime = backends.lifetime_of(trust.backend)
            moved = trust.signed_by(backend, wanted, now=datetime.now(UTC), lifetime=lifetime)
            await self._put(mesh, moved, held.revision)
            if is_move:
                _LOG.info("mesh %s: backend %s signs its certificates from now on", mesh, backend.name)
            return 0.0
        rest = trust.at(now)
        if rest != trust:
            _LOG.info("mesh %s: an old authority has come to its end", mesh)
            await self._put(mesh, rest, held.revision)
        end = rest.next_end
        return None if end is None else max((end - now).total_seconds(), _RETRY_S)

    async def _put(self, mesh: str, trust: Trust, expected_revision: int) -> int:
        stored = await self._store.put(trust.to_secret(mesh), expected_revision=expected_revision)
        return stored.revision

    async def _reach(self, mesh: str, revision: int) -> None:
        if not await self._converged(revision):
            _LOG.warning("mesh %s: some proxies do not take whom to trust; its authority moves on without them", mesh)


def _content(secrets: dict[str, StoredResource], name: str) -> bytes | None:
    stored = secrets.get(name)
    return stored.resource.content if stored is not None and isinstance(stored.resource, Secret) else None
