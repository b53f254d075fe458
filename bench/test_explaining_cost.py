"""What it costs to say which policies a proxy has and why: its own policies, never the mesh.

Work is counted as calls of Python functions and asserted to be the same in a mesh ten times as large; seconds are
processor time, told and asserted as a ratio.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import orjson
import pytest
from bench.conftest import Record, Tell
from bench.regular_mesh import TEAMS, dataplane, name, timeouts

from kumafast.matching.explanation import explain_inbound, explain_outbound
from kumafast.registry import Registry
from kumafast.resources import Mesh, Resource, parse, with_defaults
from kumafast.rest.inspection import Proxy, proxy_named
from kumafast.rest.rules import rules_document
from kumafast.store import Change, StoredResource

SMALL, LARGE = 1_000, 10_000
POLICIES, KINDS = 1_000, 10
NUMBER = 7
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROWTH_MAX = 1.5
REPEATS = 5

pytestmark = [pytest.mark.gate]


def policies() -> Iterator[Resource]:
    """A thousand of both families: for everybody, for teams, between services, about what comes in."""
    everything: dict[str, object] = {"kind": "Mesh"}
    for number in range(POLICIES // KINDS):
        team = f"team-{number % TEAMS:02}"
        subset: dict[str, object] = {"kind": "MeshSubset", "tags": {"team": team}}
        limits: dict[str, object] = {"idleTimeout": f"{number}s", "http": {"requestTimeout": f"{number}s"}}
        to = f"service-{number % 60:05}"
        yield timeouts(f"mesh-{number:03}", subset if number % 10 else everything, limits, to=to)
        to_all = {"targetRef": everything, "default": {"connectionLimits": {"maxRequests": 1 + number}}}
        yield _written("MeshCircuitBreaker", f"mesh-{number:03}", spec={"targetRef": subset, "to": [to_all]})
        rule = {"default": {"idleTimeout": f"{number}s"}}
        yield _written("MeshTimeout", f"in-{number:03}", spec={"targetRef": subset, "rules": [rule]})
        from_ = [{"targetRef": subset, "default": {"action": "Allow"}}]
        yield _written("MeshTrafficPermission", f"who-{number:03}", spec={"targetRef": everything, "from": from_})
        whom = [{"match": {"kuma.io/service": "*", "team": team}}]
        sides = {"sources": whom, "destinations": [{"match": {"kuma.io/service": to if number % 5 else "*"}}]}
        yield _written("Timeout", f"old-{number:03}", **sides, conf={"connectTimeout": f"{1 + number}s"})
        yield _written("Retry", f"old-{number:03}", **sides, conf={"http": {"numRetries": 1 + number}})
        yield _written("TrafficRoute", f"old-{number:03}", **sides, conf={"destination": {"kuma.io/service": to}})
        yield _written("TrafficPermission", f"old-{number:03}", **sides)
        limit = {"requests": 1 + number, "interval": "1s"}
        yield _written("RateLimit", f"old-{number:03}", **sides, conf={"http": limit})
        yield _written("TrafficTrace", f"old-{number:03}", selectors=whom)


def _written(kind: str, name: str, **fields: Any) -> Resource:
    return with_defaults(parse({"type": kind, "mesh": "default", "name": name, **fields}), zone="default")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one answer took."""

    calls: int
    seconds: float
    size: int


@pytest.fixture(scope="module")
def registries() -> dict[int, Registry]:
    """The policies over a mesh of each size."""
    made = {}
    for size in (SMALL, LARGE):
        made[size] = Registry()
        resources = [Mesh(name="default"), *policies(), *(dataplane(number, size) for number in range(size))]
        made[size].apply(_change(resource) for resource in resources)
    return made


def cost(registry: Registry, answer: Callable[[Proxy], object]) -> Cost:
    """An answer about one proxy of a mesh, of whose bindings nothing is remembered."""
    limits = iter(range(900, 900 + REPEATS + 1))

    def forget() -> None:
        """One of the proxy's policies is another, so all that it has been asked is asked anew."""
        own = timeouts("own", {"kind": "Dataplane", "name": name(NUMBER)}, {"idleTimeout": f"{next(limits)}s"})
        registry.apply([_change(own)])

    calls, best, encoded = 0, float("inf"), b""
    gc.collect()
    for _ in range(REPEATS):
        forget()
        started = time.process_time()
        encoded = orjson.dumps(answer(proxy_named(registry, "default", name(NUMBER))))
        best = min(best, time.process_time() - started)
    forget()

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        answer(proxy_named(registry, "default", name(NUMBER)))
    finally:
        sys.setprofile(None)
    return Cost(calls, best, len(encoded))


def _change(resource: Resource) -> Change:
    return Change(resource.key, StoredResource(resource, 1, NOW, NOW))


def explained(proxy: Proxy) -> object:
    outbounds = (explain_outbound(proxy.bindings, outbound.service) for outbound in proxy.dataplane.outbounds)
    found = [*outbounds, explain_inbound(proxy.bindings, 0)]
    return sum(len(each.candidates) for explanations in found for each in explanations)


@pytest.mark.parametrize("answer", [rules_document, explained])
def test_an_answer_costs_its_proxy_and_not_the_mesh(
    answer: Callable[[Proxy], object], registries: dict[int, Registry], tell: Tell, record: Record
) -> None:
    small, large = cost(registries[SMALL], answer), cost(registries[LARGE], answer)
    tell(
        f"{getattr(answer, '__name__', '')}, {POLICIES} policies",
        f"{small.seconds * 1e3:.2f} ms of {SMALL} dataplanes, {large.seconds * 1e3:.2f} ms of {LARGE}; "
        f"{large.calls} calls, {large.size} bytes",
    )
    what = getattr(answer, "__name__", "")
    record(**{f"{what}_small_cpu_s": small.seconds, f"{what}_cpu_s": large.seconds})
    assert (large.calls, large.size) == (small.calls, small.size)
    assert large.seconds <= GROWTH_MAX * small.seconds
