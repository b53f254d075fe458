"""Names as Kuma 2.14 gives them."""

from __future__ import annotations

import pytest

from kumafast.generation import names


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.168.0.1", "inbound:192.168.0.1:80"), ("fd00::1", "inbound:[fd00::1]:80"), ("::1", "inbound:[::1]:80")],
)
def test_ipv6_addresses_stand_in_brackets(address: str, expected: str) -> None:
    assert names.inbound_listener_name(address, 80) == expected
    assert names.outbound_listener_name(address, 80) == expected.replace("inbound", "outbound")


def test_a_cluster_is_called_like_its_service() -> None:
    assert names.cluster_name({"kuma.io/service": "backend"}) == "backend"


def test_a_cluster_chosen_by_more_tags_has_kumas_digest_of_them() -> None:
    # Recorded from Kuma: the first 8 bytes of SHA-256 over "kuma.io/servicebackendregionus".
    assert names.cluster_name({"region": "us", "kuma.io/service": "backend"}) == "backend-c72efb5be46fae6b"


def test_the_digest_does_not_depend_on_the_order_of_tags() -> None:
    pairs = [("kuma.io/service", "backend"), ("version", "v1"), ("a", "b")]
    assert names.cluster_name(dict(pairs)) == names.cluster_name(dict(reversed(pairs)))


def test_other_tags_give_another_name() -> None:
    by_version = {names.cluster_name({"kuma.io/service": "backend", "version": v}) for v in ("v1", "v2", "v3")}
    assert len(by_version) == 3


def test_tags_without_a_service_have_no_name() -> None:
    with pytest.raises(ValueError, match=r"kuma\.io/service"):
        names.cluster_name({"version": "v1"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost:8080", "localhost_8080"),
        ("backend.kuma-system", "backend_kuma-system"),
        ("inbound:[::1]:80", "inbound____1__80"),
        ("back_end-1", "back_end-1"),
        ("dienst-größe", "dienst-gr__e"),
    ],
)
def test_statistics_hold_letters_digits_dashes_and_underscores(name: str, expected: str) -> None:
    assert names.stat_name(name) == expected


def test_a_name_that_needs_no_change_has_no_alternative() -> None:
    assert names.alternative_stat_name("backend-1") == ""
    assert names.alternative_stat_name("backend.1") == "backend_1"
