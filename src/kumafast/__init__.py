"""kumafast: a universal service-mesh control plane that pays for a change only what the change costs.

Importing the package starts nothing and loads no server: each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kumafast._core import (
        IdSet,
        Matches,
        SelectorSet,
        SnapshotDigest,
        TagIndex,
        TagSelector,
        TagSet,
        changed_snapshots,
        diff_versions,
        digest,
    )
    from kumafast.control_plane import ControlPlane
    from kumafast.resources import Dataplane, DataplaneInsight, Mesh

__version__ = "0.1.0"

__all__ = [
    "ControlPlane",
    "Dataplane",
    "DataplaneInsight",
    "IdSet",
    "Matches",
    "Mesh",
    "SelectorSet",
    "SnapshotDigest",
    "TagIndex",
    "TagSelector",
    "TagSet",
    "changed_snapshots",
    "diff_versions",
    "digest",
]

_HOME = {
    "ControlPlane": "control_plane",
    "Dataplane": "resources",
    "DataplaneInsight": "resources",
    "Mesh": "resources",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME.get(name, '_core')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
