"""Which inbounds serve a destination, and which protocol its clients may speak.

In: dataplanes, the tags of an outbound. Out: inbounds, a protocol. Never: addresses as Envoy wants them.
Source of the rules: Kuma 2.14's selectors (all tags on one inbound, never a union) and its protocol inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kumafast.matching.backends import Selection
from kumafast.matching.facts import ANY, candidates
from kumafast.resources import Dataplane
from kumafast.resources.networking import Inbound
from kumafast.resources.tags import AWAITS_PROXY_LABEL

UNKNOWN = "unknown"

# What each protocol can also be served as, nearest first.
_STACKS: Mapping[str, tuple[str, ...]] = {
    "grpc": ("grpc", "http2", "tcp"),
    "http2": ("http2", "tcp"),
    "http": ("http", "tcp"),
    "kafka": ("kafka", "tcp"),
    "tls": ("tls", "tcp"),
    "tcp": ("tcp",),
}


def serving_inbounds(dataplane: Dataplane, tags: Mapping[str, str]) -> tuple[Inbound, ...]:
    """The inbounds of a dataplane that have all these tags and are ready for traffic."""
    if AWAITS_PROXY_LABEL in dataplane.labels:
        return ()
    return tuple(inbound for inbound in dataplane.inbounds if inbound.is_ready and _has_all(inbound.tags, tags))


def instance_inbounds(dataplane: Dataplane, selections: Iterable[Selection]) -> tuple[Inbound, ...]:
    """The inbounds of a dataplane that are ready and serve a port of a service with these selections."""
    if AWAITS_PROXY_LABEL in dataplane.labels:
        return ()
    tag_sets = candidates(dataplane)
    matched = [each for each in selections if any(map(each.selector.matches, tag_sets))]
    return tuple(
        inbound
        for inbound in dataplane.inbounds
        if inbound.is_ready and any(selection.takes(inbound) for selection in matched)
    )


def _has_all(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    # As `TagSelector` matches; for one or two tags that are asked for once it is faster than to prepare them.
    for key, value in wanted.items():
        has = tags.get(key)
        if has is None or (value not in (has, ANY)):
            return False
    return True


def common_protocol(protocols: Iterable[str]) -> str:
    """The protocol that all of these can be served as; `unknown` for none at all.

    >>> common_protocol(["http", "http"]), common_protocol(["grpc", "http2"]), common_protocol(["http", "grpc"])
    ('http', 'http2', 'tcp')
    """
    common: str | None = None
    for protocol in protocols:
        if common is None:
            common = protocol
        elif common != protocol:
            theirs = _STACKS.get(protocol, ())
            common = next((candidate for candidate in _STACKS.get(common, ()) if candidate in theirs), UNKNOWN)
    return UNKNOWN if common is None else common
