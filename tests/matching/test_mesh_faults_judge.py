"""Whose requests meet which fault of random MeshFaultInjections, as Kuma's table of subsets has it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from envoy.extensions.filters.http.fault.v3 import fault_pb2
from tests.builders import dataplane, inbound, outbound
from tests.matching import permission_worlds
from tests.matching.policy_worlds import EPOCH, bindings_of
from tests.matching.test_senders_judge import manager_of, said
from tests.oracles import permissions_naive, policies_naive
from tests.oracles.permissions_naive import Stored

from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import Inbound
from kumafast.resources import Dataplane, parse, to_document, validate
from kumafast.resources.target_ref_policy import TargetRefPolicy

WORLDS = 600
FILTER = "envoy.filters.http.fault"
HTTP = {"kuma.io/protocol": "http"}
SIDECARS = {"kind": "Mesh", "proxyTypes": ["Sidecar"]}


def random_policies(rng: random.Random) -> list[Stored]:
    """Some policies for the server, or not; each item has a number of its own."""
    stored: list[Stored] = []
    numbers = iter(range(1, 100))
    for name in rng.sample(["p1", "p2", "p3"], rng.randrange(4)):
        items = permission_worlds.items(rng, rng.randint(1, 3))
        for item in items:
            limit = f"{next(numbers)}kbps"
            item["default"] = {"http": [{"responseBandwidth": {"percentage": 100, "limit": limit}}]}
        top = rng.choice([SIDECARS, {"kind": "MeshService", "name": "api"}, {"kind": "MeshService", "name": "other"}])
        document = {
            "type": "MeshFaultInjection",
            "mesh": "default",
            "name": name,
            "spec": {"targetRef": top, "from": items},
        }
        policy = parse(document)
        assert validate(policy) == ()
        stored.append((policy, EPOCH + timedelta(hours=rng.randrange(2))))
    return stored


def expected(policies: Sequence[Stored], server: Dataplane) -> list[Any]:
    """All items for the server, in order of weight, each with its number in the place of a permission's action."""
    chosen = [each for each, _ in policies if isinstance(each, TargetRefPolicy)]
    chosen = [each for each in chosen if policies_naive.selects(each, server)[1][0]]
    specs = (cast(Any, to_document(policy))["spec"] for policy in policies_naive.in_order(chosen))
    return [
        {
            "targetRef": item["targetRef"],
            "default": {"action": item["default"]["http"][0]["responseBandwidth"]["limit"]},
        }
        for spec in specs
        for item in spec["from"]
    ]


def met(policies: Sequence[Stored], server: Dataplane, header: str | None) -> str:
    """The fault that a request with a header meets at the server, by its number; nothing for none."""
    found = effects(bindings_of(policies, server).inbound(0), "inbound", "http")
    manager = manager_of(Inbound("10.0.0.1", 80, "127.0.0.1", 80, "api", "http", (), effects=found))

    def is_met(matchers: Any) -> bool:
        return all(header is not None and re.fullmatch(each.safe_regex_match.regex, header) for each in matchers)

    route = next(each for each in manager.route_config.virtual_hosts[0].routes if is_met(each.match.headers))
    fault = fault_pb2.HTTPFault()
    if FILTER not in route.typed_per_filter_config or not route.typed_per_filter_config[FILTER].Unpack(fault):
        return ""
    limit = fault.response_rate_limit.fixed_limit.limit_kbps
    return f"{limit}kbps" if limit else ""


def test_sources_meet_what_kumas_table_of_subsets_says() -> None:
    """Also where that is exponential; but for the clients for which the table has two rules that differ."""
    seen: Counter[str] = Counter()
    for seed in range(WORLDS):
        rng = random.Random(seed)
        policies = random_policies(rng)
        server = dataplane("api", inbound=[inbound(80, tags={"kuma.io/service": "api", **HTTP})])
        (tags,) = permission_worlds.client(rng, inbounds=1).inbounds
        client = dataplane("client", inbound=[inbound(80, tags=dict(tags))], outbound=[outbound(9000, "api")])
        items = expected(policies, server)
        table = permissions_naive.table(items)
        answers = [answer for terms, answer in table if permissions_naive.is_of(terms, tags)]
        found = met(policies, server, said(policies, client))
        if len(set(answers)) > 1:
            seen["ambiguous"] += 1
            assert found in answers, seed
        else:
            assert found == (answers[0] if answers else ""), seed
            seen["met" if found else "not met"] += 1
    assert min(seen["met"], seen["not met"]) > WORLDS // 10
    assert seen["met"] + seen["not met"] > 10 * seen["ambiguous"]
