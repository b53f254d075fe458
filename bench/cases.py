"""The cases that benchmarks and tests share: a mesh of N dataplanes and the selectors of its policies.

In: sizes. Out: plain dicts, the same for the same sizes, on every machine. Never: anything of the core, so that the
naive twins can be given the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from random import Random

Tags = dict[str, str]

SIZES = {"1k": (1_000, 200), "10k": (10_000, 2_000), "50k": (50_000, 10_000)}
ZONES, ENVIRONMENTS, TEAMS = 50, ("prod", "staging", "test", "dev"), 200

# What policies name, most of all a service; and what comes with it.
_FIRST = {"kuma.io/service": 60, "team": 15, "kuma.io/zone": 10, "env": 5, "version": 5, "kuma.io/protocol": 5}
_WILDCARD_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """`dataplanes[id]` and `selectors[id]` are tags; each dataplane has one inbound with six."""

    dataplanes: list[Tags]
    selectors: list[Tags]


def dataplane(service: int, random: Random) -> Tags:
    return {
        "kuma.io/service": f"service-{service}_mesh_svc_8080",
        "kuma.io/zone": f"zone-{min(int(random.paretovariate(0.7)) - 1, ZONES - 1)}",
        "kuma.io/protocol": ("http", "http", "grpc", "tcp")[service % 4],
        "env": random.choices(ENVIRONMENTS, weights=(70, 15, 10, 5))[0],
        "team": f"team-{service % TEAMS}",
        "version": f"v{random.choices((1, 2, 3), weights=(80, 15, 5))[0]}",
    }


def selector(tags: Tags, random: Random) -> Tags:
    """One to three tags that some dataplane has; now and then a wildcard."""
    keys = random.choices(list(_FIRST), weights=list(_FIRST.values()))
    keys += random.sample([key for key in tags if key != keys[0]], k=random.randint(0, 2))
    return {key: "*" if random.random() < _WILDCARD_SHARE else tags[key] for key in keys}


@cache
def realistic(dataplanes: int, selectors: int) -> Case:
    """One service for ten dataplanes, skewed: the largest has hundreds of instances, most have a few."""
    random = Random(f"realistic {dataplanes} {selectors}")
    services = max(1, dataplanes // 10)
    weights = list(accumulate(1 / (rank + 20) for rank in range(services)))
    chosen = random.choices(range(services), cum_weights=weights, k=dataplanes)
    mesh = [dataplane(service, random) for service in chosen]
    return Case(mesh, [selector(random.choice(mesh), random) for _ in range(selectors)])


@cache
def uniform(dataplanes: int, selectors: int) -> Case:
    """No skew, and every key is named as often as any other: rows are many times longer than in a real mesh."""
    random = Random(f"uniform {dataplanes} {selectors}")
    values = {"service": dataplanes // 10, "version": 3, "env": 4, "region": 10, "zone": ZONES, "team": TEAMS}
    mesh = [{key: f"{key}-{random.randrange(count)}" for key, count in values.items()} for _ in range(dataplanes)]
    chosen = (random.choice(mesh) for _ in range(selectors))
    return Case(
        mesh, [{key: tags[key] for key in random.sample(sorted(tags), k=random.randint(1, 3))} for tags in chosen]
    )


@cache
def between_services(dataplanes: int, selectors: int) -> Case:
    """Each selector names a service and something more: much to verify for each match, and short rows."""
    random = Random(f"between services {dataplanes} {selectors}")
    mesh = realistic(dataplanes, 1).dataplanes
    chosen = (random.choice(mesh) for _ in range(selectors))
    others = [key for key in mesh[0] if key != "kuma.io/service"]
    return Case(mesh, [{key: tags[key] for key in ("kuma.io/service", *random.sample(others, k=2))} for tags in chosen])


def versions(resources: int, generation: int = 1) -> dict[str, str]:
    """A snapshot of `resources` resources as Envoy names them, with versions of 32 hexadecimal digits."""
    random = Random(f"versions {resources} {generation}")
    return {
        f"outbound:127.0.0.1:{at + 10_000}/service-{at}_mesh": random.randbytes(16).hex() for at in range(resources)
    }
