"""Cases of who sends: the first that a client meets decides as Kuma's merging of all that are about it does."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from tests.mesh_policies import MESH, mesh_policy
from tests.oracles import policies_naive

from kumafast._core import TagSelector
from kumafast.matching import CompiledPolicy, compile_policies, compile_policy
from kumafast.matching.rules import cases
from kumafast.resources import Resource
from kumafast.resources.fields import thaw

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE = "kuma.io/service"
CLIENTS = [{SERVICE: service, "version": version} for service in ("a", "b", "c") for version in ("1", "2")]


def compiled(*policies: Resource) -> list[CompiledPolicy]:
    return [compile_policy(policy, created=EPOCH) for policy in policies]


def conf(*policies: Resource) -> Any:
    rule = cases(compiled(*policies))
    return None if rule is None else thaw(rule.conf)


def faults(*statuses: int) -> dict[str, Any]:
    return {"http": [{"abort": {"httpStatus": status, "percentage": 100}} for status in statuses]}


def identity(value: str, kind: str = "Exact", more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"spiffeID": {"type": kind, "value": value}, **(more or {})}


SNI = {"sni": {"type": "Exact", "value": "a"}}


def rule(status: int, *matches: dict[str, Any]) -> dict[str, Any]:
    return {"matches": list(matches), "default": faults(status)}


def fault_injection(name: str, **spec: Any) -> Resource:
    return mesh_policy("MeshFaultInjection", name, targetRef={"kind": "Dataplane"}, **spec)


def statuses(found: Any) -> list[int]:
    return [fault["abort"]["httpStatus"] for each in found for fault in each["default"]["http"]]


def test_narrow_cases_come_first_and_of_equal_ones_those_of_more_weight() -> None:
    found = conf(
        fault_injection("b", rules=[rule(500), rule(501, identity("spiffe://a/b")), rule(502, SNI)]),
        fault_injection(
            "a",
            rules=[
                rule(503, identity("spiffe://a/", "Prefix")),
                rule(504, identity("spiffe://a/b"), identity("spiffe://a/bb", "Prefix")),
                rule(505, identity("spiffe://a/b", more=SNI)),
                rule(506),
            ],
        ),
    )
    assert statuses(found["cases"]) == [505, 504, 501, 504, 503, 502]
    assert found["http"] == faults(506)["http"]


def test_rules_silence_sources() -> None:
    listed = fault_injection("a", from_=[{"targetRef": MESH, "default": faults(500)}])
    assert conf(listed) == {"cases": [{"tags": {}, "default": faults(500)}]}
    assert conf(listed, fault_injection("z", rules=[rule(501)])) == faults(501)


def test_nothing_said_is_no_rule() -> None:
    assert conf() is None


def sources(rng: random.Random, name: str) -> Resource:
    refs = [
        MESH,
        {"kind": "MeshSubset", "tags": {"version": rng.choice("12")}},
        {"kind": "MeshService", "name": rng.choice("abc")},
        {"kind": "MeshServiceSubset", "name": rng.choice("abc"), "tags": {"version": rng.choice("12")}},
    ]
    said: list[dict[str, Any]] = [faults(rng.randrange(500, 600)), {"http": []}, {}]
    items = [{"targetRef": rng.choice(refs), "default": rng.choice(said)} for _ in range(rng.randrange(4))]
    return fault_injection(name, from_=items)


def judged(found: Any, client: dict[str, str]) -> Any:
    """What the first case says that a client meets and that says anything."""
    for case in () if found is None else found["cases"]:
        if case["tags"].items() <= client.items() and "http" in case["default"]:
            return case["default"]["http"]
    return None


def merged(policies: list[Resource], client: dict[str, str]) -> Any:
    """Kuma's rule for a client: all items whose subset it is in, merged in the order of weight."""
    said = []
    for policy in policies_naive.in_order(policies):  # type: ignore[arg-type]
        for item in policy.spec.from_:
            ref = item.target_ref
            wanted = {**ref.tags, **({SERVICE: ref.name} if ref.name else {})}
            if wanted.items() <= client.items() and item.default is not None:
                said.append(item.default.model_dump(by_alias=True, exclude_none=True))
    return policies_naive.merged(said).get("http")


def test_sources_decide_as_merging_does() -> None:
    met = 0
    for seed in range(500):
        rng = random.Random(seed)
        policies = [sources(rng, name) for name in rng.sample(["a", "ab", "b", "c"], rng.randrange(1, 4))]
        found = conf(*policies)
        for client in CLIENTS:
            expected = merged(policies, client)
            assert judged(found, client) == expected, seed
            met += expected is not None
    assert met > 500


def test_clients_are_asked_who_they_are_where_a_source_is_not_everybody() -> None:
    named = {"kind": "MeshServiceSubset", "name": "web", "tags": {"version": "1"}}
    items = [{"targetRef": each, "default": faults(500)} for each in (MESH, named)]
    top = {"kind": "MeshService", "name": "echo"}
    policy = mesh_policy("MeshFaultInjection", "p", targetRef=top, from_=items)
    _, asking = compile_policies(policy, created=EPOCH)
    assert asking.selectors == (TagSelector({SERVICE: "web"}),)
    assert [item.service for item in asking.outbound] == ["echo"]
    assert asking.inbound == ()
    everybody = mesh_policy("MeshFaultInjection", "p", targetRef=top, from_=items[:1])
    assert len(compile_policies(everybody, created=EPOCH)) == 1
    shadow = mesh_policy("MeshFaultInjection", "p", labels={"kuma.io/effect": "shadow"}, targetRef=top, from_=items)
    assert len(compile_policies(shadow, created=EPOCH)) == 1
