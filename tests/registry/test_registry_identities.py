"""Whom changes of meshes, secrets and insights can touch: those of the mesh whose identity is another, or nobody."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from tests.builders import dataplane, outbound
from tests.pipeline import secured

from kumafast.identity.authority import create_authority
from kumafast.identity.backends import builtin_names
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.resources import DataplaneInsight, Mesh, Resource, ResourceKey, Secret, secret_data
from kumafast.store import Change, StoredResource

_NOW = datetime.now(UTC)
_PAIRS = {name: create_authority(name, now=_NOW) for name in ("ca-1", "ca-2", "again")}
_BACKEND = (("kuma.io/service", "backend"),)


def put(resource: Resource) -> Change:
    return Change(resource.key, StoredResource(resource, 1, _NOW, _NOW))


def secrets(backend: str, *, pair: str = "", mesh: str = "default") -> list[Change]:
    held = _PAIRS[pair or backend]
    names = builtin_names(mesh, backend)
    contents = (held.certificate, held.key)
    return [
        put(Secret(mesh=mesh, name=name, data=secret_data(content)))
        for name, content in zip(names, contents, strict=True)
    ]


def insight(name: str, *, is_secured: bool) -> Change:
    return put(DataplaneInsight(name=name, mesh="default", mTLS={"issuedBackend": "ca-1"} if is_secured else None))


def is_nobody(affected: Affected) -> bool:
    return not (affected.proxies or affected.bound or affected.destinations or affected.meshes or affected.vanished)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.apply(
        [
            *(put(Mesh(name=name)) for name in ("default", "other")),
            put(dataplane("backend-1", tags={"kuma.io/service": "backend"})),
            put(dataplane("backend-2", tags={"kuma.io/service": "backend"})),
            put(dataplane("web-1", outbound=[outbound(service="backend")])),
        ]
    )
    return registry


def test_a_mesh_and_its_authority_in_one_commit_are_one_change(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        affected = registry.apply([put(secured()), *secrets("ca-1")])
    assert affected.meshes == {"default"}
    # The mesh comes first in the commit, and that is no reason to complain.
    assert caplog.records == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_in_whatever_order_they_come(registry: Registry, at: int) -> None:
    changes = secrets("ca-1")
    changes.insert(at, put(secured()))
    assert registry.apply(changes).meshes == {"default"}
    assert registry.identities.get("default") is not None


@pytest.mark.parametrize(
    "changes",
    [
        [put(secured())],
        [put(secured().model_copy(update={"labels": {"a": "b"}}))],
        secrets("ca-1"),
        secrets("ca-2"),
        [put(Secret(mesh="default", name="of-another-purpose", data="eA=="))],
        secrets("ca-1", mesh="other"),
        [Change(ResourceKey("Secret", "default", "never-was"), None)],
        [put(Mesh(name="other", labels={"a": "b"}))],
    ],
    ids=["equal", "a label", "equal secrets", "unused", "other purpose", "other mesh", "gone", "plain mesh"],
)
def test_what_makes_no_other_identity_affects_nobody(registry: Registry, changes: list[Change]) -> None:
    registry.apply([put(secured()), *secrets("ca-1")])
    assert is_nobody(registry.apply(changes))


@pytest.mark.parametrize(
    "changes",
    [
        [put(secured(mode="PERMISSIVE"))],
        [put(secured(life="20s"))],
        [put(secured("ca-2")), *secrets("ca-2")],
        secrets("ca-1", pair="again"),
        [put(Mesh(name="default"))],
        [Change(ResourceKey("Mesh", "", "default"), None)],
    ],
    ids=["mode", "life", "backend", "secrets", "without TLS", "gone"],
)
def test_another_identity_affects_its_mesh_and_no_other(registry: Registry, changes: list[Change]) -> None:
    registry.apply([put(secured()), *secrets("ca-1"), put(secured(name="other")), *secrets("ca-1", mesh="other")])
    other = registry.identities.get("other")
    affected = registry.apply(changes)
    assert affected.meshes == {"default"}
    assert not affected.proxies
    assert not affected.destinations
    assert registry.identities.get("other") is other


def test_an_authority_that_goes_leaves_what_is_in_force(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    registry.apply([put(secured()), *secrets("ca-1")])
    before = registry.identities.get("default")
    with caplog.at_level(logging.ERROR):
        affected = registry.apply([Change(each.key, None) for each in secrets("ca-1")])
    assert is_nobody(affected)
    assert registry.identities.get("default") is before
    assert not registry.identities.is_broken("default")
    assert "backend ca-1 cannot be used" in caplog.text
    assert "PRIVATE KEY" not in caplog.text


def test_an_authority_that_never_was_is_broken_and_its_coming_affects_the_mesh(registry: Registry) -> None:
    assert registry.apply([put(secured())]).meshes == {"default"}
    assert registry.identities.is_broken("default")
    assert registry.apply(secrets("ca-1")).meshes == {"default"}
    assert not registry.identities.is_broken("default")


def test_only_the_first_and_the_last_word_of_a_certificate_count(registry: Registry) -> None:
    said = DataplaneId("default", "backend-1")
    assert not registry.is_secured(said)
    affected = registry.apply([insight("backend-1", is_secured=True)])
    assert affected.destinations == {("default", _BACKEND): {"backend-1"}}
    assert not affected.proxies
    assert not affected.meshes
    assert registry.is_secured(said)
    assert is_nobody(registry.apply([insight("backend-1", is_secured=True)]))
    assert is_nobody(registry.apply([insight("web-1", is_secured=True)]))
    affected = registry.apply([Change(ResourceKey("DataplaneInsight", "default", "backend-1"), None)])
    assert affected.destinations == {("default", _BACKEND): {"backend-1"}}
    assert not registry.is_secured(said)


def test_an_insight_before_its_dataplane_counts_when_that_comes(registry: Registry) -> None:
    assert is_nobody(registry.apply([insight("later", is_secured=True)]))
    assert registry.is_secured(DataplaneId("default", "later"))
