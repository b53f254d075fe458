"""What MeshPassthrough changes: which redirected traffic that is not for the mesh goes out.

In: a merged conf. Out: effects. Never: a change where nothing is redirected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kumafast.generation.effects import Effect, Passage
from kumafast.generation.passages import passage
from kumafast.resources.policies.mesh_passthrough import ALL, MATCHED, Conf, MeshPassthrough

KIND = MeshPassthrough.type.name


@dataclass(frozen=True, slots=True)
class Passing(Effect):
    """What goes out in place of all."""

    passing: Passage

    def passage(self) -> Passage:
        """What goes out."""
        return self.passing


def passthrough(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listeners of what is let through as it came, and in their clusters."""
    written = Conf.model_validate(conf)
    mode = written.passthrough_mode or MATCHED
    return Passing(passage(written.append_match) if mode == MATCHED else Passage(is_open=mode == ALL))
