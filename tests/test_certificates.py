"""Certificates of connected nodes: issued when they are sent, equal for as long as they are good, replaced in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import dataplane, inbound

from kumafast import certificates as module
from kumafast.certificates import Certificates
from kumafast.identity.authority import Authority, create_authority, load_authority
from kumafast.identity.identities import MeshIdentity
from kumafast.snapshot.resource import SECRET

LIFE = timedelta(hours=1)
NODE = "default.web-1"
START = 1_800_000_000.0


def _authority(name: str) -> Authority:
    return load_authority(create_authority(name, now=datetime.now(UTC)))


ONE, OTHER = _authority("one"), _authority("other")


def mesh_of(authority: Authority = ONE, *, lifetime: timedelta = LIFE) -> MeshIdentity:
    return MeshIdentity(
        mesh="default",
        backend="ca-1",
        digest=authority.digest,
        trusted=(authority.chain.decode(),),
        lifetime=lifetime,
        is_permissive=False,
        authority=authority,
    )


class Held:
    """Certificates by a clock that is set by hand, and how many were issued."""

    def __init__(self) -> None:
        self.now = START
        self.issued = 0
        self.certificates = Certificates(count=self._count, clock=lambda: self.now)

    def _count(self) -> None:
        self.issued += 1

    def version(self, *, authority: Authority = ONE, node: str = NODE, version: str = "") -> str:
        tags = {"kuma.io/service": "web", **({"version": version} if version else {})}
        (secret,) = self.certificates.layer(mesh_of(authority), node, dataplane(tags=tags))
        assert (secret.type_url, secret.name) == (SECRET, "identity_cert:secret:default")
        return secret.version


def test_a_certificate_is_issued_once_and_when_it_is_first_sent() -> None:
    held = Held()
    layer = held.certificates.layer(mesh_of(), NODE, dataplane())
    certificate = held.certificates.get(NODE)
    assert certificate is not None
    assert (held.issued, certificate.issued_at) == (0, None)
    (secret,) = layer
    assert secret.body is secret.body
    assert held.issued == 1
    assert certificate.issued_at == datetime.fromtimestamp(START, UTC)
    assert certificate.expires_at == datetime.fromtimestamp(START, UTC) + LIFE
    leaf = x509.load_pem_x509_certificate(
        secret_pb2.Secret.FromString(secret.body).tls_certificate.certificate_chain.inline_bytes
    )
    assert leaf.not_valid_after_utc == certificate.expires_at
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "spiffe://default/web" in names.get_values_for_type(x509.UniformResourceIdentifier)


def test_in_place_of_another_it_is_issued_at_once() -> None:
    held = Held()
    held.version()
    assert held.issued == 0
    layer = held.certificates.layer(mesh_of(OTHER), NODE, dataplane())
    assert held.issued == 1
    assert layer.resources[0].body
    assert held.issued == 1


def test_no_two_nodes_share_a_version_and_with_it_a_key() -> None:
    # All else being equal, as of two instances of a service in the same period.
    held = Held()
    versions: set[str] = set()
    for number in range(200):
        (secret,) = held.certificates.layer(mesh_of(lifetime=timedelta(days=999)), f"default.web-{number}", dataplane())
        versions.add(secret.version)
    assert len(versions) == 200


def test_the_same_layer_for_as_long_as_it_is_good() -> None:
    held = Held()
    first = held.certificates.layer(mesh_of(), NODE, dataplane())
    assert held.certificates.layer(mesh_of(), NODE, dataplane(address="10.0.0.9")) is first
    assert held.certificates.layer(mesh_of(OTHER), NODE, dataplane()) is not first


def test_versions_say_what_a_certificate_is_on_every_instance() -> None:
    one, other = Held(), Held()
    assert one.version() == other.version()
    assert one.version(version="v2") != one.version()
    assert one.version(authority=OTHER) != one.version()
    one.now += LIFE.total_seconds()
    assert one.version() != other.version()


@given(st.text("abcdef-", min_size=1, max_size=12), st.floats(0, 1e6), st.floats(5, 1e6))
def test_a_node_is_due_exactly_when_its_version_changes(name: str, passed: float, life_s: float) -> None:
    held = Held()
    held.now += passed
    mesh, node = mesh_of(lifetime=timedelta(seconds=life_s)), f"default.{name}"

    def version() -> str:
        (secret,) = held.certificates.layer(mesh, node, dataplane())
        return secret.version

    before = version()
    due = held.certificates._renewals.next
    assert due is not None
    assert 0 < due - held.now <= life_s * 0.8 + 0.001
    held.now = due - 0.001
    assert held.certificates.take_due() == []
    assert version() == before
    held.now = due + 0.001
    assert held.certificates.take_due() == [node]
    assert held.certificates.take_due() == []
    assert version() != before


def test_a_node_that_has_gone_is_never_due() -> None:
    held = Held()
    held.version()
    held.certificates.forget(NODE)
    held.now += 10 * LIFE.total_seconds()
    assert held.certificates.take_due() == []
    assert held.certificates.get(NODE) is None
    held.certificates.forget(NODE)


def test_renewals_of_many_are_spread_over_the_life() -> None:
    held = Held()
    for number in range(5_000):
        held.version(node=f"default.dp-{number}")
    taken = []
    for _ in range(80):
        held.now += LIFE.total_seconds() / 100
        taken.append(len(held.certificates.take_due()))
    assert sum(taken) == 5_000
    # 62.5 at a time, were it perfectly even.
    assert max(taken) < 2 * 62.5


def test_it_sleeps_until_the_next_is_due_and_wakes_for_one_that_is_due_earlier() -> None:
    async def main() -> None:
        held = Held()
        told: list[str] = []
        is_told = asyncio.Event()

        def expire(nodes: Sequence[str]) -> None:
            told.extend(nodes)
            is_told.set()

        held.version()
        following = asyncio.create_task(held.certificates.follow(expire))
        # Now it sleeps, for as long as it ever does.
        await asyncio.sleep(0.01)
        held.certificates.layer(mesh_of(lifetime=timedelta(milliseconds=10)), "default.early", dataplane())
        held.now += 1
        await asyncio.wait_for(is_told.wait(), module._SLEEP_MAX_S / 2)
        assert told == ["default.early"]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


def test_a_clock_that_leaps_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLEEP_MAX_S", 0.02)

    async def main() -> None:
        held = Held()
        told: list[str] = []
        held.version()
        following = asyncio.create_task(held.certificates.follow(told.extend))
        await asyncio.sleep(0.1)
        assert told == []
        held.now += LIFE.total_seconds()
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0.01)
        assert told == [NODE]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


def test_what_was_made_for_times_to_come_is_due_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLEEP_MAX_S", 0.02)

    async def main() -> None:
        held = Held()
        told: list[str] = []
        before = held.version()
        held.now += 10 * LIFE.total_seconds()
        assert held.version() != before
        following = asyncio.create_task(held.certificates.follow(told.extend))
        await asyncio.sleep(0.05)
        assert told == []
        held.now -= 10 * LIFE.total_seconds()
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0.01)
        # Who asks again gets what was good before, and nobody is told any more.
        assert (told, held.version()) == ([NODE], before)
        await asyncio.sleep(0.1)
        held.now -= 1
        await asyncio.sleep(0.1)
        assert told == [NODE]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(main())


def test_what_was_made_while_the_clock_was_ahead_between_two_looks_is_due() -> None:
    held = Held()
    before = held.version()
    assert held.certificates.take_due() == []
    # It is later than at the last look, and earlier than where the clock has been since.
    held.now += 10_000 * LIFE.total_seconds()
    assert held.version() != before
    held.now -= 10_000 * LIFE.total_seconds() - 1
    assert held.certificates.take_due() == [NODE]
    assert held.version() == before
    assert held.certificates.take_due() == []


def test_a_gateway_without_inbounds_has_the_names_of_its_own_tags() -> None:
    held = Held()
    gateway = dataplane("edge", inbound=[], gateway={"tags": {"kuma.io/service": "edge"}})
    held.certificates.layer(mesh_of(), "default.edge", gateway)
    certificate = held.certificates.get("default.edge")
    assert certificate is not None
    assert certificate.identity.sans == ("spiffe://default/edge", "kuma://kuma.io/service/edge")


def test_several_inbounds_of_one_service_give_one_name() -> None:
    held = Held()
    two = dataplane(inbound=[inbound(80), inbound(81), inbound(82, tags={"kuma.io/service": "other"})])
    held.certificates.layer(mesh_of(), NODE, two)
    certificate = held.certificates.get(NODE)
    assert certificate is not None
    assert [san for san in certificate.identity.sans if san.startswith("spiffe")] == [
        "spiffe://default/other",
        "spiffe://default/web",
    ]
