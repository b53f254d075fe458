"""Who has seen what: the xDS protocol as a pure state machine, and its shell on the network.

In: snapshots, requests of Envoys. Out: responses with only what changed. Never: where snapshots come from.
The names below are loaded when they are first used, so that the pure part can be imported without its shell.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kumafast.stream.csds import Csds
    from kumafast.stream.hds import Hds
    from kumafast.stream.observer import Node, NodeObserver
    from kumafast.stream.server import XdsServer
    from kumafast.stream.tls import TlsFiles

__all__ = ["Csds", "Hds", "Node", "NodeObserver", "TlsFiles", "XdsServer"]

_HOME = {
    "Csds": "csds",
    "Hds": "hds",
    "Node": "observer",
    "NodeObserver": "observer",
    "TlsFiles": "tls",
    "XdsServer": "server",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
