"""From one authority to another: in an order in which no proxy ever meets one that it does not trust."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kumafast.errors import ConflictError
from kumafast.identity import backends
from kumafast.identity.admission import admit
from kumafast.identity.authority import create_authority
from kumafast.identity.identities import Identities, MeshIdentity
from kumafast.identity.rollout import Rollout
from kumafast.identity.trust import Trust, trust_name
from kumafast.resources import Mesh, ResourceKey, Secret, secret_data
from kumafast.store import MemoryStore, Put, Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = MemoryStore()
    yield store
    await store.close()


def _mesh(enabled: str, *names: str, **backend: Any) -> Mesh:
    listed = [{"name": name, "type": "builtin", **backend} for name in names or (enabled,)]
    return Mesh.model_validate({"name": "default", "mtls": {"enabledBackend": enabled, "backends": listed}})


async def _apply(store: Store, mesh: Mesh) -> None:
    admission = await admit(mesh, store)
    assert admission.violations == ()
    await store.write([Put(mesh), *(Put(each, expected_revision=0) for each in admission.companions)])


async def _identity(store: Store) -> MeshIdentity:
    identities = Identities()
    stored = [*(await store.list("Mesh")).items, *(await store.list("Secret")).items]
    identities.apply((each.resource.key, each.resource) for each in stored)
    identity = identities.get("default")
    assert identity is not None
    return identity


async def _trust(store: Store) -> Trust:
    stored = (await store.get(ResourceKey("Secret", "default", trust_name("default")))).resource
    assert isinstance(stored, Secret)
    return Trust.from_content(stored.content)


class _Waits:
    """Notes what was true each time that the proxies were waited for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[tuple[str, int]] = []

    async def converged(self, revision: int) -> bool:
        identity = await _identity(self.store)
        self.seen.append((identity.backend, len(identity.trusted)))
        return True


async def test_a_mesh_gets_its_authority_in_the_commit_that_asks_for_it(store: Store) -> None:
    await _apply(store, _mesh("ca-1"))
    assert await store.revision() == 1
    identity = await _identity(store)
    assert (identity.backend, len(identity.trusted)) == ("ca-1", 1)
    assert {stored.resource.name for stored in (await store.list("Secret")).items} == {
        "default.ca-builtin-cert-ca-1",
        "default.ca-builtin-key-ca-1",
        "default.ca-trust",
    }
    await _apply(store, _mesh("ca-1"))
    assert (await _identity(store)) == identity


async def test_both_are_trusted_before_the_new_one_signs_and_until_the_old_ones_certificates_end(store: Store) -> None:
    await _apply(store, _mesh("ca-1", dpCert={"rotation": {"expiration": "1h"}}))
    old = await _identity(store)
    # The old backend is taken out in the same write.
    await _apply(store, _mesh("ca-2", dpCert={"rotation": {"expiration": "1h"}}))
    # Nobody has been told of the new authority yet, so it does not sign, but it will be trusted.
    assert (await _identity(store)).digest == old.digest
    waits = _Waits(store)
    rollout = Rollout(store=store, converged=waits.converged)
    while (wait_s := await rollout.step("default")) == 0.0:
        pass
    assert waits.seen == [("ca-1", 2), ("ca-1", 2)]
    new = await _identity(store)
    assert (new.backend, len(new.trusted)) == ("ca-2", 2)
    assert new.digest != old.digest
    assert wait_s is not None
    assert 3_600 < wait_s < 3_700
    later = (await _trust(store)).at(datetime.now(UTC) + timedelta(seconds=wait_s + 1))
    assert [each.digest for each in later.trusted] == [new.digest]


async def test_a_step_back_in_the_middle_ends_where_it_began(store: Store) -> None:
    await _apply(store, _mesh("ca-1", "ca-1", "ca-2"))
    old = await _identity(store)
    await _apply(store, _mesh("ca-2", "ca-1", "ca-2"))
    rollout = Rollout(store=store, converged=_Waits(store).converged)
    assert await rollout.step("default") == 0.0
    await _apply(store, _mesh("ca-1", "ca-1", "ca-2"))
    while await rollout.step("default") == 0.0:
        pass
    assert (await _identity(store)).digest == old.digest


async def test_of_two_instances_one_takes_the_step(store: Store) -> None:
    await _apply(store, _mesh("ca-1"))
    await _apply(store, _mesh("ca-2"))
    rollouts = [Rollout(store=store, converged=_Waits(store).converged) for _ in range(2)]
    results = await asyncio.gather(*(each.step("default") for each in rollouts), return_exceptions=True)
    assert {type(result) for result in results if isinstance(result, Exception)} <= {ConflictError}
    assert len((await _trust(store)).trusted) == 2


async def test_the_steps_are_taken_by_themselves(store: Store) -> None:
    await _apply(store, _mesh("ca-1"))
    task = asyncio.create_task(Rollout(store=store, converged=_Waits(store).converged).follow())
    for name in ("ca-2", "ca-3", "ca-1"):
        await _apply(store, _mesh(name, "ca-1", "ca-2", "ca-3"))
        async with asyncio.timeout(5):
            while (await _identity(store)).backend != name:
                await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    identity = await _identity(store)
    assert len(identity.trusted) == 3


async def test_an_end_that_has_come_is_taken_note_of_without_a_write_by_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kumafast.identity.rollout._RETRY_S", 0.01)
    monkeypatch.setattr("kumafast.identity.trust.CLOCK_SKEW", timedelta())
    monkeypatch.setattr(backends, "LIFETIME_MIN", timedelta())
    short = {"rotation": {"expiration": "100ms"}}
    await _apply(store, _mesh("ca-1", dpCert=short))
    await _apply(store, _mesh("ca-2", dpCert=short))
    task = asyncio.create_task(Rollout(store=store, converged=_Waits(store).converged).follow())
    async with asyncio.timeout(5):
        while (await _identity(store)).backend != "ca-2" or len((await _trust(store)).trusted) > 1:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [each.until for each in (await _trust(store)).trusted] == [None]


async def test_without_tls_there_is_no_identity_and_nothing_to_do(store: Store) -> None:
    await store.put(Mesh(name="default"))
    assert await Rollout(store=store, converged=_Waits(store).converged).step("default") is None
    identities = Identities()
    identities.apply([(Mesh(name="default").key, Mesh(name="default"))])
    assert identities.get("default") is None
    assert not identities.is_broken("default")


async def test_no_authority_never_means_plaintext() -> None:
    identities = Identities()
    mesh = _mesh("ca-1")
    assert identities.apply([(mesh.key, mesh)]) == {"default"}
    assert identities.is_broken("default")
    pair = create_authority("a", now=datetime.now(UTC))
    certificate, key = backends.builtin_names("default", "ca-1")
    secrets = [
        Secret(mesh="default", name=certificate, data=secret_data(pair.certificate)),
        Secret(mesh="default", name=key, data=secret_data(pair.key)),
    ]
    assert identities.apply([(each.key, each) for each in secrets]) == {"default"}
    assert not identities.is_broken("default")
    held = identities.get("default")
    # What was in force stays in force when its secrets vanish.
    identities.apply([(secrets[1].key, None)])
    assert identities.get("default") == held
    assert not identities.is_broken("default")


@pytest.mark.parametrize("kind", ["inline", "inlineString", "file", "secret"])
async def test_a_provided_authority_from_each_kind_of_source(store: Store, kind: str, tmp_path: Any) -> None:
    pair = create_authority("mine", now=datetime.now(UTC))
    await store.put(Mesh(name="default"))
    conf = {}
    for field, content in (("cert", pair.certificate), ("key", pair.key)):
        (tmp_path / field).write_bytes(content)
        await store.put(Secret(mesh="default", name=field, data=secret_data(content)))
        conf[field] = {
            "inline": secret_data(content),
            "inlineString": content.decode(),
            "file": str(tmp_path / field),
            "secret": field,
        }[kind]
    await _apply(store, _provided({field: {kind: value} for field, value in conf.items()}))
    assert (await _identity(store)).trusted == (pair.certificate.decode(),)


def _provided(conf: dict[str, Any]) -> Mesh:
    backend = {"name": "mine", "type": "provided", "conf": conf}
    return Mesh.model_validate({"name": "default", "mtls": {"enabledBackend": "mine", "backends": [backend]}})


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "cert has to be given as one of secret, file, inline, inlineString"),
        ({"cert": {"secret": "gone"}, "key": {"secret": "gone"}}, "there is no secret gone in the mesh"),
        ({"cert": {"file": "/nowhere/ca.pem"}, "key": {}}, "cannot read the control plane's file /nowhere/ca.pem"),
        ({"cert": {"inline": "?"}, "key": {}}, "cert.inline must be base64"),
        ({"cert": {"inlineString": "x"}, "key": {"inlineString": "y"}}, "not a certificate in PEM"),
    ],
)
async def test_an_authority_of_no_use_is_refused_with_the_reason(
    store: Store, conf: dict[str, Any], reason: str
) -> None:
    admission = await admit(_provided(conf), store)
    assert [(each.field, each.message.partition(":")[0]) for each in admission.violations] == [
        ("mtls.backends[0].conf", admission.violations[0].message.partition(":")[0])
    ]
    assert reason in admission.violations[0].message
    assert admission.companions == ()
