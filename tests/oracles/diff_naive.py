"""Version differences as their definition words them.

In: two dicts. Out: names changed, names removed. Never: a shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping


def diff_versions(held: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    changed = [name for name in wanted if name not in held or held[name] != wanted[name]]
    removed = [name for name in held if name not in wanted]
    return changed, removed
