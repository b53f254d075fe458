"""A policy that is edited again and again is found anew by what it says now, without a look at what it said before."""

from __future__ import annotations

import pytest
from tests.builders import dataplane
from tests.matching.policy_worlds import EPOCH, bindings_of

from kumafast.matching import CompiledPolicy
from kumafast.resources import Resource, parse

EDITS = 40


def _limit(seconds: int) -> Resource:
    to = [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": f"{seconds}s"}}]
    spec = {"targetRef": {"kind": "Mesh"}, "to": to}
    return parse({"type": "MeshTimeout", "mesh": "default", "name": "limit", "spec": spec})


def test_edits_of_a_policy_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    is_equal = CompiledPolicy.__eq__

    def compare(one: CompiledPolicy, other: object) -> bool:
        nonlocal compared
        compared += 1
        return is_equal(one, other)

    monkeypatch.setattr(CompiledPolicy, "__eq__", compare)
    found = []
    for seconds in range(1, EDITS + 1):
        [setting] = bindings_of([(_limit(seconds), EPOCH)], dataplane("web-1")).outbound("backend")
        found.append(setting.conf["idleTimeout"])
    assert found == [f"{seconds}s" for seconds in range(1, EDITS + 1)]
    # Each with itself, and no edit with those before it: that would be hundreds.
    assert compared <= 2 * EDITS
