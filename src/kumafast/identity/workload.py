"""A workload's identity: which names its certificate carries, and when another takes its place.

In: the tags of a dataplane, the node's id, the time. Out: `WorkloadIdentity`, a value that says what a certificate is.
Never: keys; a timer for each proxy; anything that two instances at the same time could answer differently.

Time is cut into periods of four fifths of a certificate's life, for each node at another phase. Within a period a node
keeps its certificate, whichever instance issued it; in the next it gets another. So a certificate is always replaced
with a fifth of its life left at least, the replacements of many nodes are spread evenly, and an instance that a node
comes to can tell without asking anybody that the certificate which it holds is the right one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from kumafast._core import digest
from kumafast.resources.spiffe import spiffe_id, tag_uri
from kumafast.resources.tags import SERVICE_TAG

RENEWED_AFTER = Fraction(4, 5)
"""The part of its life after which a certificate is replaced."""

_PHASES = 1 << 64


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """What a workload's certificate says, and whose it is. Equal values are certificates of equal worth."""

    mesh: str
    node: str
    """The id of the one node that is sent it: what has equal versions may be shared, and a key must not be."""
    sans: tuple[str, ...]
    authority: str
    """The digest of the authority that signs it."""
    lifetime: timedelta
    period: int

    @property
    def version(self) -> str:
        """The version of the secret: what it is, not its bytes, which are other ones each time that it is issued."""
        seconds = str(self.lifetime.total_seconds())
        return digest(
            "\0".join([self.mesh, self.node, self.authority, seconds, str(self.period), *self.sans]).encode()
        ).hex()


def workload_sans(mesh: str, tag_sets: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """The URIs of a dataplane: its services, then each tag and value that one of its inbounds has.

    >>> workload_sans("default", [{"kuma.io/service": "web", "version": "v1"}])
    ('spiffe://default/web', 'kuma://kuma.io/service/web', 'kuma://version/v1')
    """
    pairs = sorted({pair for tags in tag_sets for pair in tags.items()})
    services = [value for key, value in pairs if key == SERVICE_TAG]
    return (*(spiffe_id(mesh, service) for service in services), *(tag_uri(key, value) for key, value in pairs))


def period_at(node_id: str, *, lifetime: timedelta, now: datetime) -> int:
    """The number of the period that a node is in."""
    return int((now.timestamp() + _phase_s(node_id, lifetime)) // _length_s(lifetime))


def period_end_s(node_id: str, *, lifetime: timedelta, now: datetime) -> float:
    """In how many seconds the node's next period begins; greater than 0."""
    length = _length_s(lifetime)
    return length - (now.timestamp() + _phase_s(node_id, lifetime)) % length


def _length_s(lifetime: timedelta) -> float:
    return float(lifetime.total_seconds() * RENEWED_AFTER)


def _phase_s(node_id: str, lifetime: timedelta) -> float:
    return int.from_bytes(digest(node_id.encode())[:8]) / _PHASES * _length_s(lifetime)
