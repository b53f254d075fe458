"""The family of policies for connections: from dataplanes chosen by `sources` to services chosen by `destinations`.

In: documents in Kuma's 2.14 form. Out: what all of these kinds have, and their rules. Never: a conf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kumafast.errors import Violation
from kumafast.resources.durations import nanoseconds
from kumafast.resources.fields import FrozenMap, Tags
from kumafast.resources.resource import Frozen, Resource
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import check_selector, check_selector_entries, key_of

if TYPE_CHECKING:
    from kumafast.resources.mesh import Mesh


class Selector(Frozen):
    """Tags that one inbound must have; `*` is any value."""

    match: Tags = FrozenMap()


class ConnectionPolicy(Resource):
    """A policy of one winner: the most specific one that matches a connection applies, alone."""

    sources: tuple[Selector, ...] = ()
    destinations: tuple[Selector, ...] = ()

    @property
    def parts(self) -> tuple[ConnectionPolicy, ...]:
        """The policies that it stands for: itself, but for old documents that hold several."""
        return (self,)

    def settings(self) -> Frozen | None:
        """What it sets; None where it sets nothing."""
        raise NotImplementedError

    def settings_in(self, mesh: Mesh | None) -> Frozen | None:
        """What it sets in its mesh, for kinds whose traits name fields of the mesh; None while there is no mesh."""
        return self.settings()


def check_selectors(path: str, selectors: Sequence[Selector]) -> Iterator[Violation]:
    """At least one selector, each with at least one tag of any name."""
    if not selectors:
        yield Violation(path, "must have at least one element")
    for i, selector in enumerate(selectors):
        yield from check_selector(f"{path}[{i}].match", selector.match)


def check_sources(path: str, selectors: Sequence[Selector]) -> Iterator[Violation]:
    """At least one selector, each with a service and any other tags."""
    if not selectors:
        yield Violation(path, "must have at least one element")
    for i, selector in enumerate(selectors):
        yield from check_selector(f"{path}[{i}].match", selector.match)
        yield from _check_service(f"{path}[{i}].match", selector)


def check_service_destinations(path: str, selectors: Sequence[Selector]) -> Iterator[Violation]:
    """At least one selector, each a service and nothing else: a client knows no other tag of what it calls."""
    if not selectors:
        yield Violation(path, "must have at least one element")
    for i, selector in enumerate(selectors):
        where = f"{path}[{i}].match"
        if selector.match.keys() != {SERVICE_TAG}:
            yield Violation(where, f'must consist of exactly one tag "{SERVICE_TAG}"')
        for name in sorted(selector.match):
            if name != SERVICE_TAG:
                yield Violation(key_of(where, name), f'tag "{name}" is not allowed')
        yield from check_selector_entries(where, selector.match)
        yield from _check_service(where, selector)


def check_positive(path: str, section: Frozen, *names: str) -> Iterator[Violation]:
    """Durations that, where they are set, are more than zero."""
    written = section.model_dump(by_alias=True)
    for name in names:
        if written[name] is not None and nanoseconds(written[name]) <= 0:
            yield Violation(f"{path}.{name}", "must have a positive value")


def _check_service(path: str, selector: Selector) -> Iterator[Violation]:
    if SERVICE_TAG not in selector.match:
        yield Violation(path, f'mandatory tag "{SERVICE_TAG}" is missing')
