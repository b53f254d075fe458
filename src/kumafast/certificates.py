"""The certificate of each connected node: which it is to have now, issued when it is first sent, replaced in time.

In: a mesh's identity, a node with its dataplane. Out: a layer with one secret; nodes whose certificate is due.
Never: a certificate for a node that comes and holds, by its version, the one that it is to have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kumafast.generation import names, tls
from kumafast.identity.identities import MeshIdentity
from kumafast.identity.renewals import Renewals
from kumafast.identity.workload import WorkloadIdentity, period_at, period_end_s, workload_sans
from kumafast.resources import Dataplane
from kumafast.snapshot import LateResource, Layer
from kumafast.snapshot.resource import SECRET

_DUE_TOGETHER_S = 0.05
"""Certificates that are due within this time are replaced together."""

_SLEEP_MAX_S = 30.0
"""After this time the clock is looked at again, whatever was due when: it may have leapt."""


@dataclass(slots=True, eq=False)
class Certificate:
    """What a node has, or is about to have, and when."""

    identity: WorkloadIdentity
    backend: str
    issued_at: datetime | None = None
    """None while this instance has not had to issue it."""
    expires_at: datetime | None = None


class Certificates:
    """One for each connected node of a mesh with TLS.

    `count` is called for each one that is issued; `clock` gives the seconds since the epoch.
    """

    def __init__(self, *, count: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._count = count
        # Certificates end by the clock on the wall: one that leaps, as that of a machine which slept, takes them along.
        self._clock = clock
        # The layer refers to the certificate and never the other way round: layers are not looked through for cycles.
        self._held: dict[str, tuple[Certificate, Layer]] = {}
        self._renewals = Renewals()
        # The latest time that one was made for: what is held may be of a time to come where the clock shows less.
        self._made_for = 0.0
        self._is_due_earlier = asyncio.Event()

    def get(self, node_id: str) -> Certificate | None:
        """The certificate of a connected node; None where its mesh has no TLS."""
        held = self._held.get(node_id)
        return None if held is None else held[0]

    def layer(self, mesh: MeshIdentity, node_id: str, dataplane: Dataplane) -> Layer:
        """The layer with the secret that a node is to have now."""
        now = self._now()
        self._made_for = max(self._made_for, now.timestamp())
        wanted = wanted_identity(mesh, node_id, dataplane, now=now)
        self._renew_at(node_id, now.timestamp() + period_end_s(node_id, lifetime=mesh.lifetime, now=now))
        held = self._held.get(node_id)
        if held is None or held[0].identity != wanted:
            certificate = Certificate(wanted, mesh.backend)
            secret = self._secret(mesh, certificate)
            if held is not None:
                # A connected node is sent this for sure. Made now it counts in the slice in which snapshots are made;
                # made when it is sent, those of a whole slice of streams would come in one turn of the loop.
                secret.make()
            held = self._held[node_id] = (certificate, Layer([secret]))
        return held[1]

    def forget(self, node_id: str) -> None:
        """The node has gone, or its mesh has no TLS any more."""
        if self._held.pop(node_id, None) is not None:
            self._renewals.forget(node_id)

    async def follow(self, expire: Callable[[Sequence[str]], None]) -> None:
        """Tell of nodes whose certificate is due, until cancelled. It sleeps until the next one is."""
        while True:
            self._is_due_earlier.clear()
            due = self._renewals.next
            wait_s = None if due is None else min(max(due - self._clock(), 0.0) + _DUE_TOGETHER_S, _SLEEP_MAX_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._is_due_earlier.wait()
            except TimeoutError:
                nodes = self.take_due()
                if nodes:
                    expire(nodes)

    def take_due(self) -> list[str]:
        """The nodes that need another certificate by now. Each is named once; `layer` makes what it is to have."""
        if self._clock() < self._made_for:
            self._take_back()
        return self._renewals.take(self._clock())

    def _take_back(self) -> None:
        """The clock has gone back: what was made for times to come, which nobody takes now, is due."""
        now = self._now()
        self._made_for = now.timestamp()
        for node_id, (certificate, _) in self._held.items():
            identity = certificate.identity
            if identity.period > period_at(node_id, lifetime=identity.lifetime, now=now):
                self._renewals.set(node_id, now.timestamp())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _renew_at(self, node_id: str, at: float) -> None:
        before = self._renewals.next
        self._renewals.set(node_id, at)
        if before is None or at < before:
            self._is_due_earlier.set()

    def _secret(self, mesh: MeshIdentity, certificate: Certificate) -> LateResource:
        identity = certificate.identity

        def issue() -> bytes:
            self._count()
            now = certificate.issued_at = self._now()
            certificate.expires_at = now + identity.lifetime
            pair = mesh.authority.issue(identity.sans, now=now, lifetime=identity.lifetime)
            secret = tls.identity_secret(identity.mesh, chain=pair.certificate, key=pair.key)
            body: bytes = secret.SerializeToString(deterministic=True)
            return body

        return LateResource(SECRET, names.identity_name(identity.mesh), issue, version=identity.version)


def wanted_identity(mesh: MeshIdentity, node_id: str, dataplane: Dataplane, *, now: datetime) -> WorkloadIdentity:
    """What the certificate of a node says that it is to have at a time."""
    return WorkloadIdentity(
        mesh=mesh.mesh,
        node=node_id,
        sans=workload_sans(mesh.mesh, _tag_sets(dataplane)),
        authority=mesh.digest,
        lifetime=mesh.lifetime,
        period=period_at(node_id, lifetime=mesh.lifetime, now=now),
    )


def _tag_sets(dataplane: Dataplane) -> list[dict[str, str]]:
    tag_sets = [dict(inbound.tags) for inbound in dataplane.inbounds]
    if dataplane.gateway is not None:
        tag_sets.append(dict(dataplane.gateway.tags))
    return tag_sets
