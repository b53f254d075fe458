"""Why a proxy refuses what it is sent: which resources it complains of, and the policies that made them so.

In: a refusal in Envoy's words, a reconciler's forks. Out: `Cause`. Never: a guess from what kind a policy is: each is
left out on a fork of the registry, and where the resource is then another it has a share in it.

What could not even be made for a proxy says by itself what it comes from.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kumafast.fork import TURN_S, Fork
from kumafast.resources import ResourceKey
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.store import Change
from kumafast.templates import Failure

TRACED_MAX = 16
"""How many different refusals are looked into at once; of the rest no cause is told."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a refusal comes from, as far as it can be told."""

    resources: tuple[str, ...] = ()
    """The names of those that the proxy names."""
    policies: tuple[ResourceKey, ...] = ()
    """Those without which these resources would be others, the newest first."""


class Refusal(Protocol):
    """A proxy that refused what it was sent, with its own words; or for which that could not be made, with ours."""

    @property
    def node(self) -> str: ...
    @property
    def type_url(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def failure(self) -> Failure | None: ...


async def trace(
    refusals: Sequence[Refusal], fork: Callable[[], Fork], node: Callable[[str], Node | None]
) -> list[Cause]:
    """The cause of each refusal. Proxies of a mesh that say the same have the same cause, that of the first of them."""
    known: dict[tuple[str, str, str], Cause] = {}
    causes = []
    for refusal in refusals:
        if refusal.failure is not None:
            causes.append(Cause(tuple(filter(None, (refusal.failure.resource,))), refusal.failure.policies))
            continue
        key = (refusal.node.partition(".")[0], refusal.type_url, refusal.message)
        if key not in known and len(known) < TRACED_MAX:
            connected = node(refusal.node)
            known[key] = Cause() if connected is None else await _cause(refusal, connected, fork)
        causes.append(known.get(key, Cause()))
    return causes


async def _cause(refusal: Refusal, node: Node, fork: Callable[[], Fork]) -> Cause:
    present = fork()
    snapshot = present.before(node)
    dataplane_id = present.registry.identify(node.id)
    if snapshot is None or dataplane_id is None:
        return Cause()
    names = tuple(named(refusal.message, snapshot.resources(refusal.type_url)))
    was = _versions(snapshot, refusal.type_url, names)

    async def is_another(without: Sequence[ResourceKey]) -> bool:
        forked = fork()
        await _take_in(forked, [Change(key, None) for key in without])
        after = forked.after(node)
        return isinstance(after, Snapshot) and _versions(after, refusal.type_url, names) != was

    bindings = present.registry.bindings(dataplane_id)
    bound = (bindings.subjects.policies[number] for number in bindings.ranks)
    initial = {policy.key for policy in bound if policy.is_initial}
    policies = present.registry.bound(dataplane_id)
    # What came with the mesh has a share in most resources, and is no cause where a user's policy is.
    found = await _sharing([key for key in policies if key not in initial], is_another)
    return Cause(names, tuple(found or await _sharing([key for key in policies if key in initial], is_another)))


async def _sharing(
    policies: Sequence[ResourceKey], is_another: Callable[[Sequence[ResourceKey]], Awaitable[bool]]
) -> list[ResourceKey]:
    """Those of the policies without which the resources would be others."""
    found = [policy for policy in policies if await is_another([policy])]
    # Where several say the same it takes the last of them to make a difference.
    for number in range(2, 1 if found else len(policies) + 1):
        if await is_another(policies[:number]):
            last = policies[number - 1]
            return [policy for policy in policies[:number] if policy.type == last.type]
    return found


async def _take_in(fork: Fork, changes: Sequence[Change]) -> None:
    turn_began = time.monotonic()
    for _ in fork.steps(changes):
        if time.monotonic() - turn_began >= TURN_S:
            await asyncio.sleep(0)
            if not fork.is_good:
                return
            turn_began = time.monotonic()


def _versions(snapshot: Snapshot, type_url: str, names: Iterable[str]) -> Mapping[str, str | None]:
    """The versions of these resources, or of all of the type where none is named."""
    versions = snapshot.resource_versions(type_url)
    return {name: versions.get(name) for name in names} if names else dict(versions)


def named(message: str, names: Iterable[str]) -> Iterator[str]:
    """Those of the names that a text has, each as a word of its own.

    >>> list(named("Error adding/updating cluster(s) web-v2: bad", ["web", "web-v2"]))
    ['web-v2']
    """
    for name in names:
        if re.search(rf"(?<![\w:./-]){re.escape(name)}(?=$|[\s,;)'\"\]]|[:.](?:\s|$))", message):
            yield name
