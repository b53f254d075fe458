"""What Envoy is told to do with a request by who sends it is what the contract says, for random faults and limits."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tests.builders import dataplane, inbound, outbound
from tests.matching.policy_worlds import EPOCH, bindings_of
from tests.oracles import senders_naive
from tests.oracles.senders_naive import Stored

from kumafast.generation import senders
from kumafast.generation.generate import generate
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import Inbound, Outbound, Part
from kumafast.identity.proxies import tag_sets
from kumafast.resources import Dataplane, parse

WORLDS = 400
HTTP = {"kuma.io/protocol": "http"}
_Manager: TypeAlias = http_connection_manager_pb2.HttpConnectionManager


def random_tags(rng: random.Random) -> dict[str, str]:
    tags = {"kuma.io/service": rng.choice(["web", "my-web", "job"])}
    return tags | ({"version": rng.choice(["1", "1.0", "100"])} if rng.random() < 0.6 else {})


def random_source(rng: random.Random) -> dict[str, str]:
    tags = random_tags(rng) if rng.random() < 0.8 else {"version": rng.choice(["1", "1.0"])}
    return {key: "*" if rng.random() < 0.2 else value for key, value in tags.items()}


def random_destination(rng: random.Random) -> dict[str, str]:
    service = rng.choice([{}, {"kuma.io/service": "*"}, {"kuma.io/service": "api"}, {"kuma.io/service": "other"}])
    return {**HTTP, **service, **({"zone": rng.choice(["a", "b"])} if rng.random() < 0.4 else {})}


def random_policies(rng: random.Random, kind: str) -> list[Stored]:
    stored = []
    for name in rng.sample(["p1", "p2", "p3", "p4"], rng.randrange(5)):
        number = rng.randrange(1, 10_000)
        conf: dict[str, Any] = {"http": {"requests": number, "interval": "1s"}}
        if kind == "FaultInjection":
            conf = {"responseBandwidth": {"percentage": 100, "limit": f"{number}kbps"}}
        ends = {
            "sources": [{"match": random_source(rng)} for _ in range(rng.randrange(1, 3))],
            "destinations": [{"match": random_destination(rng)} for _ in range(rng.randrange(1, 3))],
        }
        policy = parse({"type": kind, "mesh": "default", "name": name, **ends, "conf": conf})
        stored.append((policy, EPOCH + timedelta(hours=rng.randrange(2))))
    return stored


def manager_of(part: Part) -> _Manager:
    (listener,) = (message for message in generate(part) if isinstance(message, listener_pb2.Listener))
    manager = _Manager()
    listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
    return manager


def said(policies: Sequence[Stored], client: Dataplane) -> str | None:
    """What the client's sidecar says of it in requests to `api`."""
    found = effects(bindings_of(policies, client).outbound("api"), "outbound", "http")
    told = tuple(effect.said_by(senders.sender(tag_sets(client))) for effect in found)
    part = Outbound("127.0.0.1", 80, "api", "http", (), "api", effects=told)
    headers = manager_of(part).route_config.request_headers_to_add
    assert len(headers) <= 1
    return headers[0].header.value if headers else None


def met(policies: Sequence[Stored], server: Dataplane, header: str | None) -> tuple[int | None, int | None]:
    """The fault and the limit that a request with a header meets at the server, by their numbers."""
    found = effects(bindings_of(policies, server).inbound(0), "inbound", "http")
    manager = manager_of(Inbound("10.0.0.1", 80, "127.0.0.1", 80, "api", "http", (), effects=found))

    def is_met(matchers: Any) -> bool:
        return all(header is not None and re.fullmatch(each.safe_regex_match.regex, header) for each in matchers)

    kilobits = None
    for each in manager.http_filters:
        fault = fault_pb2.HTTPFault()
        if each.typed_config.Unpack(fault) and is_met(fault.headers):
            assert kilobits is None
            kilobits = fault.response_rate_limit.fixed_limit.limit_kbps
    route = next(each for each in manager.route_config.virtual_hosts[0].routes if is_met(each.match.headers))
    bucket = local_rate_limit_pb2.LocalRateLimit()
    is_limited = route.typed_per_filter_config["envoy.filters.http.local_ratelimit"].Unpack(bucket)
    return kilobits, bucket.token_bucket.max_tokens if is_limited else None


def test_a_request_meets_what_the_contract_says() -> None:
    seen: Counter[str] = Counter()
    for seed in range(WORLDS):
        rng = random.Random(seed)
        zone = {"zone": rng.choice(["a", "b"])}
        server = dataplane("api", inbound=[inbound(80, tags={"kuma.io/service": "api", **HTTP, **zone})])
        inbounds = [inbound(80 + n, tags=random_tags(rng)) for n in range(rng.randrange(1, 3))]
        client = dataplane("client", inbound=inbounds, outbound=[outbound(9000, "api")])
        faults, limits = (random_policies(rng, kind) for kind in ("FaultInjection", "RateLimit"))
        policies = [*faults, *limits]
        header = said(policies, client)
        kilobits, requests = met(policies, server, header)
        tags, clients = server.inbounds[0].tags, tag_sets(client)
        fault, limit = senders_naive.fault(faults, tags, clients), senders_naive.limit(limits, tags, clients)
        assert (f"{kilobits}kbps" if kilobits else None) == (fault and fault["responseBandwidth"]["limit"]), seed
        assert requests == (limit and limit["http"]["requests"]), seed
        seen.update([f"says {header is not None}", f"fault {bool(fault)}", f"limit {bool(limit)}"])
        # Nobody says more than is asked, and in whatever order policies come it is the same.
        assert header in (None, senders.sender(clients))
        shuffled = rng.sample(policies, len(policies))
        assert (said(shuffled, client), met(shuffled, server, header)) == (header, (kilobits, requests))
    assert min(seen[f"{what} {is_so}"] for what in ("says", "fault", "limit") for is_so in (True, False)) > WORLDS / 20
