"""A selector over labels, as services and generators of host names have it.

In: documents in Kuma's 2.14 form. Out: `LabelSelector`, frozen. Never: a search; who has many selectors indexes them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kumafast.resources.fields import FrozenMap, Tags
from kumafast.resources.resource import Frozen


class LabelSelector(Frozen):
    """Matches what has all of these labels; without any it matches everything."""

    match_labels: Tags = FrozenMap()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all labels of the selector are among these.

        >>> LabelSelector(matchLabels={"app": "web"}).matches({"app": "web", "team": "x"})
        True
        """
        return all(labels.get(key) == value for key, value in self.match_labels.items())
