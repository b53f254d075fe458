"""Short histories of what long ones hide: changes that most others make good again.

In: a seed. Out: steps of `World`. Never: an assertion of what is right.

In a long history a proxy is made anew as a whole every some steps, for its mesh is written, or itself, or a name that
it sees, and then it has what it was not told before. So here little happens: policies change for a gateway, names come
to lead elsewhere by routes, or a secret is read that is another.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from tests.simulation.gateways import SECRET_FORMS, SECRETS
from tests.simulation.histories import NODES, Step
from tests.simulation.variants import (
    MESHES,
    NAMES,
    POLICIES,
    VARIANTS,
    attachment,
    outside,
    policy,
    served,
    variant,
)

from kumafast.resources import Resource

_PLAIN_MESHES = 4
"""The first forms of meshes, without TLS: nobody lacks an authority."""
_GATEWAYS = ("MeshGateway",) * 3
_GATEWAY_ROUTES = ("MeshGatewayRoute", "MeshGatewayRoute", "MeshHTTPRoute")
_ROUTES = ("MeshHTTPRoute", "MeshTCPRoute", "TrafficRoute")
_STREAM = 0


def situation(seed: int) -> list[Step]:
    """One of them; always the same by a seed."""
    rng = random.Random(f"situation {seed}")
    mesh = rng.choice(MESHES)
    # By routes little is seen: every second is one.
    make = (_at_a_gateway, _by_routes, _with_a_secret, _by_routes)[seed % 4]
    return [Step("mesh", (mesh, rng.randrange(_PLAIN_MESHES))), *make(rng, mesh)]


def _at_a_gateway(rng: random.Random, mesh: str) -> list[Step]:
    """Policies come and go for a built-in gateway and for what its listeners lead to."""
    chosen = [Step("attach", (mesh, rng.choice(_attached(each)))) for each in [*_GATEWAYS, *_GATEWAY_ROUTES]]
    steps = [*_gateway(rng, mesh), *chosen, Step("settle")]
    for _ in range(4):
        numbers = _policies(is_route=False)
        steps += [Step(rng.choice(["bind", "bind", "unbind"]), (mesh, rng.choice(numbers))), Step("commit")]
    return steps


def _by_routes(rng: random.Random, mesh: str) -> list[Step]:
    """What a name leads to is another by a route, and then has other endpoints."""
    name, *others = rng.sample(NAMES, len(NAMES))
    steps = [Step("put", (mesh, name, rng.choice(_variants(name, is_gateway=False))))]
    steps += [Step("put", (mesh, other, rng.choice(_serving(other)))) for other in others]
    steps += [*_connected(rng, mesh, name), Step("settle")]
    steps += [Step("bind", (mesh, rng.choice(_policies(is_route=True)))) for _ in range(3)]
    anew = [Step("put", (mesh, other, rng.choice(_serving(other)))) for other in others]
    return [*steps, Step("settle"), *anew]


def _with_a_secret(rng: random.Random, mesh: str) -> list[Step]:
    """What is read is another secret, or none: by a gateway that shows it, or of a service outside."""
    if rng.random() < 0.5:
        chosen = [Step("attach", (mesh, rng.choice(_attached("MeshGateway")))) for _ in range(3)]
        shown = [Step("show", (mesh, secret, rng.randrange(2))) for secret in SECRETS]
        anew = Step("show", (mesh, rng.choice(SECRETS), rng.choice([None, *range(SECRET_FORMS)])))
        return [*_gateway(rng, mesh), *chosen, *shown, Step("settle"), anew]
    name = rng.choice(NAMES)
    steps = [Step("put", (mesh, name, rng.choice(_variants(name, is_gateway=False))))]
    steps.append(Step("serve", (mesh, rng.choice(_readers(served)))))
    steps.append(Step("extend", (mesh, rng.choice(_readers(outside)))))
    steps += [Step("disclose", (mesh, "one")), *_connected(rng, mesh, name), Step("settle")]
    return [*steps, Step("disclose", (mesh, rng.choice([None, "two"])))]


def _gateway(rng: random.Random, mesh: str) -> list[Step]:
    """A dataplane that is a built-in gateway, and its stream."""
    name = rng.choice(NAMES)
    return [Step("put", (mesh, name, rng.choice(_variants(name, is_gateway=True)))), *_connected(rng, mesh, name)]


def _connected(rng: random.Random, mesh: str, name: str) -> list[Step]:
    return [Step("commit"), Step("connect", (_STREAM, mesh, name, rng.randrange(len(NODES))))]


# Which of the resources that there are by numbers are what a situation needs.


@cache
def _variants(name: str, *, is_gateway: bool) -> list[int]:
    """Built-in gateways, or those that see the names of some services."""
    found = []
    for number in range(VARIANTS):
        networking = variant(MESHES[0], name, number).networking
        assert networking is not None
        proxying = networking.transparent_proxying
        if networking.gateway is not None if is_gateway else proxying is not None and proxying.reachable_services:
            found.append(number)
    return found


@cache
def _serving(name: str) -> list[int]:
    """Those that serve anything."""
    return [number for number in range(VARIANTS) if variant(MESHES[0], name, number).inbounds]


@cache
def _attached(kind: str) -> list[int]:
    return [number for number in range(VARIANTS) if attachment(MESHES[0], number).type.name == kind]


@cache
def _policies(*, is_route: bool) -> list[int]:
    kinds = ((number, policy(MESHES[0], number).type.name) for number in range(POLICIES))
    return [number for number, kind in kinds if (kind in _ROUTES) == is_route]


@cache
def _readers(make: Callable[[str, int], Resource]) -> list[int]:
    """What reads a secret."""
    return [number for number in range(VARIANTS) if '"secret":"ca"' in make(MESHES[0], number).model_dump_json()]
