"""The door for proxies: who stays when keys, times and tags change, and what that costs."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders, token_cases
from tests.token_cases import MESH, identifier, mesh_key, revocations, sign

from kumafast.identity import signing_keys
from kumafast.identity.proxies import ProxyAccess
from kumafast.identity.signing_keys import Keyset
from kumafast.identity.token_keys import TokenKeys
from kumafast.identity.tokens import DataplaneClaims, TokenError, TokenMismatchError, Verifier
from kumafast.resources import Dataplane
from kumafast.store import MemoryStore

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class World:
    """A store with a mesh's key, and a door; `ended` are the reasons of those who had to leave."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.keys = TokenKeys(self.store)
        self.dataplanes: dict[tuple[str, str], Dataplane] = {}
        self.now: float = datetime.now(UTC).timestamp()
        self.access = ProxyAccess(
            self.keys, find_dataplane=lambda mesh, name: self.dataplanes.get((mesh, name)), clock=lambda: self.now
        )
        self.ended: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self.store.put(builders.mesh())
        await self.store.put(mesh_key(MESH))
        await self.keys.load()
        revision = await self.store.revision()
        self.tasks = [
            asyncio.create_task(self.keys.follow()),
            asyncio.create_task(self.access.follow(self.store, after=revision)),
        ]

    def admit(self, token: str, name: str = "a") -> Callable[[], None]:
        return self.access.admit(token, mesh=MESH, name=name, end=self.ended.append)

    @property
    def signatures(self) -> int:
        """How many signatures were looked at."""
        return sum(verifier.signatures for verifier in self.keys._dataplanes.values())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError


def run(work: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = World()
        await world.open()
        try:
            await work(world)
        finally:
            world.access.stop()
            for task in world.tasks:
                task.cancel()
            await asyncio.gather(*world.tasks, return_exceptions=True)
            await world.store.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def dataplane(name: str, service: str) -> Dataplane:
    return builders.dataplane(name, tags={"kuma.io/service": service})


def test_a_change_of_keys_costs_no_signature_and_judges_its_mesh_only() -> None:
    async def work(w: World) -> None:
        token = sign()
        for number in range(5_000):
            w.admit(token, f"a-{number}")
        assert w.signatures == 1
        await w.store.put(mesh_key(MESH, 2))
        await until(lambda: w.access.judged_again == 5_000)
        assert (w.signatures, w.ended, len(w.access)) == (1, [], 5_000)
        await w.store.put(builders.mesh("other"))
        await w.store.put(mesh_key("other"))
        await w.store.put(revocations(identifier(token)))
        await until(lambda: len(w.ended) == 5_000)
        assert set(w.ended) == {"the token has been revoked"}
        assert w.access.judged_again == 10_000
        assert len(w.access) == 0

    run(work)


def test_tokens_end_by_one_timer_each_at_its_time() -> None:
    async def work(w: World) -> None:
        for hours in (3, 1, 2):
            w.admit(sign(valid_for=timedelta(hours=hours)), f"a-{hours}")
        began = w.now
        for at_hours, left in ((0.5, 3), (1.5, 2), (2.5, 1), (3.5, 0)):
            w.now = began + 3600 * at_hours
            w.access._end_due()
            await asyncio.sleep(0.01)
            assert len(w.access) == left
        assert w.ended == ["the token has expired"] * 3
        assert w.access._timer is None

    run(work)


def test_what_is_kept_is_bounded_by_who_is_there() -> None:
    async def work(w: World) -> None:
        token = sign()
        for _ in range(5_000):
            w.admit(token)()
        assert len(w.access) == 0
        assert len(w.access._due) <= 64
        assert w.access._guests == {}
        leave = w.admit(token)
        leave()
        leave()
        assert len(w.access) == 0

    run(work)


def test_strangers_leave_nothing_behind() -> None:
    async def work(w: World) -> None:
        for number in range(200):
            with pytest.raises(TokenError):
                w.access.admit(sign(), mesh=f"made-up-{number}", name="a", end=w.ended.append)
        assert len(w.keys._dataplanes) + len(w.keys._keysets) <= 2

    run(work)


def test_tags_are_judged_by_the_store_and_not_by_a_picture_that_is_behind() -> None:
    async def work(w: World) -> None:
        w.dataplanes[MESH, "a"] = dataplane("a", "a")
        w.admit(sign(Tags={"kuma.io/service": ("a",)}))
        # The picture says the old tags still; the change has gone by before the stream came.
        w.dataplanes[MESH, "a"] = dataplane("a", "b")
        w.now += 1
        await until(lambda: bool(w.ended))
        assert "does not allow" in w.ended[0]

    run(work)


def test_a_dataplane_that_is_taken_away_does_not_end_its_stream() -> None:
    async def work(w: World) -> None:
        w.dataplanes[MESH, "a"] = dataplane("a", "a")
        await w.store.put(dataplane("a", "a"))
        w.admit(sign(Tags={"kuma.io/service": ("a",)}))
        key = w.dataplanes.pop((MESH, "a")).key
        await w.store.delete(key)
        await asyncio.sleep(0.05)
        assert w.ended == []
        # When it comes back as another it has.
        await w.store.put(dataplane("a", "b"))
        await until(lambda: bool(w.ended))

    run(work)


def test_nobody_takes_the_place_of_another_by_its_tags() -> None:
    async def work(w: World) -> None:
        w.dataplanes[MESH, "a"] = dataplane("a", "a")
        by_tags = w.access.verify(sign(Tags={"kuma.io/service": ("b",)}), mesh=MESH, name="a")
        with pytest.raises(TokenMismatchError, match="does not allow"):
            w.access.verify_for(by_tags, dataplane("a", "b"))
        w.access.verify_for(by_tags, dataplane("new", "b"))
        # Whose name is in the token may change its own tags.
        named = w.access.verify(sign(Name="a", Tags={"kuma.io/service": ("b",)}), mesh=MESH, name="a")
        w.access.verify_for(named, dataplane("a", "b"))

    run(work)


_PEMS = ("default-1", "default-2")


def _keyset(held: dict[str, str], revoked: frozenset[str]) -> Keyset:
    secrets = {signing_keys.dataplane_key_name(MESH, kid): token_cases.pem(which) for kid, which in held.items()}
    keyset = signing_keys.dataplane_keyset(MESH, secrets)
    return Keyset(keyset.public, keyset.private, revoked)


@given(
    held=st.dictionaries(st.sampled_from(["1", "2"]), st.sampled_from(_PEMS), max_size=2),
    is_revoked=st.booleans(),
    minutes=st.integers(-10, 70),
)
def test_asking_again_says_what_the_signature_would(held: dict[str, str], is_revoked: bool, minutes: int) -> None:
    token = sign(now=NOW)
    then = NOW + timedelta(minutes=minutes)
    keys = _keyset(held, frozenset({identifier(token)} if is_revoked else ()))
    verified = Verifier(DataplaneClaims, clock=NOW.timestamp).examine(token, token_cases.keys())

    def verdict(judge: Callable[[], object]) -> str:
        try:
            judge()
        except TokenError as error:
            return str(error)
        return ""

    fresh = Verifier(DataplaneClaims, clock=then.timestamp)
    anew = verdict(lambda: fresh.verify(token, keys))
    again = verdict(lambda: verified.check(keys, now=then.timestamp()))
    # The same `kid` with another key fails by its signature, where that is looked at.
    assert again == anew.replace("token's signature is not good", "token is signed with a key that is not known here")


def test_a_stream_that_has_gone_is_not_kept_until_its_token_ends() -> None:
    async def work(w: World) -> None:
        stream = _Stream()
        gone = weakref.ref(stream)
        leave = w.access.admit(sign(), mesh=MESH, name="a", end=stream.end)
        leave()
        assert len(w.access._due) == 1
        del stream
        assert gone() is None

    run(work)


class _Stream:
    def end(self, why: str) -> None:
        raise AssertionError(why)
