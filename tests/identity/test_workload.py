"""When certificates are replaced: in time, spread out, and the same on every instance."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kumafast.identity.workload import WorkloadIdentity, period_at, period_end_s, workload_sans

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@given(
    node=st.text(min_size=1, max_size=20),
    lifetime=st.integers(5, 10**7).map(lambda seconds: timedelta(seconds=seconds)),
    offset=st.floats(0, 10**8),
)
def test_a_certificate_is_replaced_with_a_fifth_of_its_life_left(node: str, lifetime: timedelta, offset: float) -> None:
    issued = NOW + timedelta(seconds=offset)
    left_s = period_end_s(node, lifetime=lifetime, now=issued)
    assert 0 < left_s <= lifetime.total_seconds() * 0.8 + 1e-6
    period = period_at(node, lifetime=lifetime, now=issued)
    tolerance = timedelta(milliseconds=1)
    assert period_at(node, lifetime=lifetime, now=issued + timedelta(seconds=left_s) + tolerance) == period + 1
    if left_s > 0.01:
        assert period_at(node, lifetime=lifetime, now=issued + timedelta(seconds=left_s) - tolerance) == period


def test_a_fleet_that_came_at_once_is_not_renewed_at_once() -> None:
    ends = [period_end_s(f"default.web-{i}", lifetime=DAY, now=NOW) for i in range(2_000)]
    hours = [0] * 20
    for end in ends:
        hours[int(end // 3600)] += 1
    assert max(hours[:19]) < 2 * min(hours[:19])


def test_a_version_says_what_a_certificate_is() -> None:
    identity = WorkloadIdentity("default", "default.web-1", ("spiffe://default/web",), "digest", DAY, 7)
    assert identity.version == replace(identity).version
    others = [
        replace(identity, mesh="other"),
        replace(identity, node="default.web-2"),
        replace(identity, sans=("spiffe://default/api",)),
        replace(identity, authority="another"),
        replace(identity, lifetime=2 * DAY),
        replace(identity, period=8),
    ]
    assert len({identity.version, *(other.version for other in others)}) == 1 + len(others)


def test_names_are_those_of_all_inbounds_each_once() -> None:
    sans = workload_sans(
        "m",
        [{"kuma.io/service": "web", "v": "1"}, {"kuma.io/service": "web-admin", "v": "1"}, {"kuma.io/service": "a"}],
    )
    assert sans == (
        "spiffe://m/a",
        "spiffe://m/web",
        "spiffe://m/web-admin",
        "kuma://kuma.io/service/a",
        "kuma://kuma.io/service/web",
        "kuma://kuma.io/service/web-admin",
        "kuma://v/1",
    )
