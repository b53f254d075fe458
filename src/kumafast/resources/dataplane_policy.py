"""The family of policies for dataplanes: each is about the proxies that its `selectors` choose, as a whole.

In: documents in Kuma's 2.14 form. Out: what all of these kinds have, and their rules. Never: a conf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kumafast.errors import Violation
from kumafast.resources.connection_policy import Selector
from kumafast.resources.resource import Frozen, Resource
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import check_selector

if TYPE_CHECKING:
    from kumafast.resources.mesh import Mesh


class DataplanePolicy(Resource):
    """A policy of one winner: of all that select a dataplane the most specific one applies, alone.

    Without selectors, or with an empty one, it selects every dataplane and is the least specific.
    """

    selectors: tuple[Selector, ...] = ()

    def settings(self) -> Frozen | None:
        """What it sets; None where it sets nothing."""
        raise NotImplementedError

    def settings_in(self, mesh: Mesh | None) -> Frozen | None:
        """What it sets in its mesh, for kinds whose traits name fields of the mesh; None while there is no mesh."""
        return self.settings()


def check_service_selectors(path: str, selectors: Sequence[Selector]) -> Iterator[Violation]:
    """Any number of selectors, each with a service and any other tags."""
    for i, selector in enumerate(selectors):
        where = f"{path}[{i}].match"
        yield from check_selector(where, selector.match)
        if SERVICE_TAG not in selector.match:
            yield Violation(where, f'mandatory tag "{SERVICE_TAG}" is missing')
