"""Requests that ask for too much are known before they are parsed; whatever the bytes, nothing worse happens."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.excess_naive import (
    ERROR_BYTES_MAX,
    NAMES_MAX,
    NODE_BYTES_MAX,
    TEXT_BYTES_MAX,
    VERSIONS_MAX,
    is_too_much,
)

from kumafast._core import request_excess


def delta(**fields: Any) -> bytes:
    return bytes(discovery_pb2.DeltaDiscoveryRequest(**fields).SerializeToString())


def sotw(**fields: Any) -> bytes:
    return bytes(discovery_pb2.DiscoveryRequest(**fields).SerializeToString())


def _names(count: int) -> list[str]:
    return [str(at) for at in range(count)]


CASES: dict[str, tuple[bytes, bytes, bool]] = {
    "subscribed": (
        delta(resource_names_subscribe=_names(NAMES_MAX)),
        delta(resource_names_subscribe=_names(NAMES_MAX + 1)),
        True,
    ),
    "both": (
        delta(resource_names_subscribe=_names(NAMES_MAX - 5), resource_names_unsubscribe=_names(5)),
        delta(resource_names_subscribe=_names(NAMES_MAX - 5), resource_names_unsubscribe=_names(6)),
        True,
    ),
    "SotW": (sotw(resource_names=_names(NAMES_MAX)), sotw(resource_names=_names(NAMES_MAX + 1)), False),
    "versions": (
        delta(initial_resource_versions=dict.fromkeys(_names(VERSIONS_MAX), "v")),
        delta(initial_resource_versions=dict.fromkeys(_names(VERSIONS_MAX + 1), "v")),
        True,
    ),
    "type": (delta(type_url="t" * TEXT_BYTES_MAX), delta(type_url="t" * (TEXT_BYTES_MAX + 1)), True),
    "nonce": (sotw(response_nonce="t" * TEXT_BYTES_MAX), sotw(response_nonce="t" * (TEXT_BYTES_MAX + 1)), False),
    "node": (
        delta(node={"id": "n" * (NODE_BYTES_MAX - 4)}),
        delta(node={"id": "n" * (NODE_BYTES_MAX - 3)}),
        True,
    ),
    "error": (
        sotw(error_detail={"message": "n" * (ERROR_BYTES_MAX - 4)}),
        sotw(error_detail={"message": "n" * (ERROR_BYTES_MAX - 3)}),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_limit_is_where_the_naive_twin_has_it(name: str) -> None:
    allowed, excessive, is_delta = CASES[name]
    assert not is_too_much(allowed, is_delta=is_delta)
    assert is_too_much(excessive, is_delta=is_delta)
    assert request_excess(allowed, is_delta=is_delta) is None
    assert request_excess(excessive, is_delta=is_delta) is not None


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_pass_or_are_told(data: bytes, is_delta: bool) -> None:
    assert request_excess(data, is_delta=is_delta) in (None, "a group of fields")


@pytest.mark.parametrize("where", ["before", "behind"])
def test_group_does_not_hide_what_comes_behind_it(where: str) -> None:
    """Protobuf passes over groups, which no message of xDS has, and would read millions of names behind one."""
    group, names = b"\x4b\x4c", b"\x1a\x00" * 30_000
    discovery_pb2.DeltaDiscoveryRequest.FromString(group + names)
    assert request_excess(group + names if where == "behind" else names + group, is_delta=True) is not None
    assert request_excess(group, is_delta=False) is not None


@pytest.mark.parametrize("tag", [b"\x0a\x00", b"\x12\x00", b"\x40\x00", b"\x1a\x00", b"\x2a\x00"])
def test_millions_of_nothing_are_too_much(tag: bytes) -> None:
    assert request_excess(tag * 5_000_000, is_delta=True) is not None
