"""What Envoy is told to do with a client is what the contract says of it, for random permissions of both families."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from envoy.config.listener.v3 import listener_pb2
from tests.matching import permission_worlds
from tests.matching.policy_worlds import EPOCH, asked
from tests.oracles import permissions_naive, rbac_naive
from tests.oracles.permissions_naive import Client, Stored

from kumafast.generation.generate import generate
from kumafast.generation.policies import mesh_traffic_permission
from kumafast.generation.policies.mesh_traffic_permission import PRINCIPALS_MAX, Permitted, Source
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import Inbound, InboundTls
from kumafast.identity.workload import workload_sans
from kumafast.matching import compile_policies
from kumafast.registry.policies import Policies
from kumafast.resources import Dataplane

WORLDS = 40_000 if os.environ.get("KUMAFAST_LONG") else 4_000


def listeners(policies: Sequence[Stored], dataplane: Dataplane) -> list[listener_pb2.Listener]:
    """The listeners of a dataplane's inbounds, by the way that every proxy's come to be."""
    indexed = Policies()
    indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
    for policy, created in policies:
        for position, compiled in enumerate(compile_policies(policy, created=created)):
            for _ in indexed.set_policy(policy.key._replace(name=f"{policy.name}#{position}"), compiled):
                pass
    bindings = indexed.bindings(dataplane.name)
    found: list[listener_pb2.Listener] = []
    for position, inbound in enumerate(dataplane.inbounds):
        part = Inbound(
            address="10.0.0.1",
            port=inbound.port,
            service_address="127.0.0.1",
            service_port=inbound.port,
            service=inbound.service,
            protocol=inbound.protocol,
            tags=(),
            tls=InboundTls("default"),
            effects=effects(bindings.inbound(position), "inbound", inbound.protocol),
        )
        found += [message for message in generate(part) if isinstance(message, listener_pb2.Listener)]
    return found


def judged(listener: listener_pb2.Listener, client: Client) -> rbac_naive.Verdict:
    uris = workload_sans("default", client.inbounds)
    return rbac_naive.judge(listener, uris, client.server_name)


def world(seed: int) -> tuple[list[Stored], Dataplane, Client]:
    rng = random.Random(seed)
    # A world of one family and of both; where a MeshTrafficPermission is for an inbound, it silences the other.
    share = rng.choice([0.0, 0.3, 1.0])
    policies: list[Stored] = []
    for number in range(rng.randint(0, 4)):
        make = permission_worlds.mesh_permission if rng.random() < share else permission_worlds.permission
        policies.append((make(rng, f"p{number}"), EPOCH + timedelta(hours=rng.randint(0, 2))))
    rng.shuffle(policies)
    return policies, permission_worlds.dataplane(rng), permission_worlds.client(rng)


@pytest.mark.parametrize("part", range(4))
def test_who_may_connect(part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(part, WORLDS, 4):
        policies, dataplane, client = world(seed)
        for position, listener in enumerate(listeners(policies, dataplane)):
            expected = permissions_naive.answer(policies, dataplane, position, client)
            verdict = judged(listener, client)
            assert verdict.is_let is expected.may_connect, (seed, position)
            on_trial = verdict.is_let and verdict.is_let_on_trial is False
            assert on_trial is (expected.may_connect and expected.is_on_trial), (seed, position)
            seen["let" if verdict.is_let else "refused"] += 1
            seen["on trial"] += on_trial
    # A test of who may connect in worlds where hardly anybody may, or nobody may not, would show nothing.
    assert min(seen["let"], seen["refused"]) > WORLDS // 20
    assert seen["on trial"] > WORLDS // 200


def test_sources_decide_as_kumas_table_of_subsets() -> None:
    """Also where that is exponential; but for the clients for which the table has two rules that differ."""
    compared = ambiguous = 0
    for seed in range(WORLDS // 4):
        rng = random.Random(seed)
        items = permission_worlds.items(rng, rng.randint(1, 5))
        client = permission_worlds.client(rng, inbounds=1)
        table = permissions_naive.table(items)
        actions = [action for terms, action in table if permissions_naive.is_of(terms, client.inbounds[0])]
        ours, _ = permissions_naive.decision(items, client)
        if len(set(actions)) > 1:
            ambiguous += 1
            assert ours in actions
        else:
            compared += 1
            assert [ours] == (actions[:1] or [""]), seed
    assert compared > 10 * ambiguous


def test_the_cost_of_sources_is_that_of_the_list() -> None:
    """Kuma's table has 2^n rules for n sources with a tag of their own."""
    for count in (10, 20, 40, 1_000):
        sources = tuple(Source(((f"tag-{i}", "1"),), ("Deny", "Allow")[i % 2]) for i in range(count))
        guard = Permitted(sources).inbound_guard("default")
        conditions = str(guard.rules).count("principal_name") + str(guard.matcher).count("single_predicate")
        assert conditions <= max(count, PRINCIPALS_MAX)


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_the_bound_on_principals_is_one(count: int) -> None:
    rng = random.Random(count)
    for _ in range(50):
        actions = [rng.choice(["Allow", "Deny", "AllowWithShadowDeny"]) for _ in range(count)]
        sources = tuple(Source(((f"tag-{i}", "1"),), action) for i, action in enumerate(actions))
        guard = Permitted(sources).inbound_guard("default")
        for rules in (guard.rules, guard.shadow_rules):
            assert str(rules).count("principal_name") <= mesh_traffic_permission._principals(sources)


def test_sources_as_matchers_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_traffic_permission, "PRINCIPALS_MAX", -1)
    for seed in range(0, WORLDS, 8):
        policies, dataplane, client = world(seed)
        for position, listener in enumerate(listeners(policies, dataplane)):
            expected = permissions_naive.answer(policies, dataplane, position, client)
            verdict = judged(listener, client)
            on_trial = verdict.is_let and verdict.is_let_on_trial is False
            assert (verdict.is_let, on_trial) == (
                expected.may_connect,
                expected.may_connect and expected.is_on_trial,
            ), (seed, position)


def test_what_can_never_decide_is_left_out() -> None:
    conf = {
        "from": [
            {"tags": {"version": "1"}, "default": {"action": "Deny"}},
            {"default": {"action": "Allow"}},
            {"tags": {"version": "2"}, "default": {"action": "Deny"}},
        ]
    }
    effect = mesh_traffic_permission.inbound(conf, "http")
    guard = effect.inbound_guard("default")
    assert guard is not None
    assert "kuma://version/2" not in str(guard.rules)
