# distutils: language = c++
"""Differences between version maps."""

from collections.abc import Mapping


def diff_versions(held, wanted, /):
    for side in (held, wanted):
        if not isinstance(side, Mapping):
            raise TypeError(f"a version map must be a mapping of str to str, not {type(side).__name__}")
    if held is wanted:
        return [], []
    for side in (held, wanted):
        for name, version in side.items():
            if not isinstance(name, str) or not isinstance(version, str):
                raise TypeError("a version map holds str to str")
    changed = [name for name, version in wanted.items() if held.get(name) != version]
    return changed, [name for name in held if name not in wanted]
