"""What lists of backends have in common: names, of which each is used once, and one that is chosen.

In: backends, a name. Out: the backend of that name, violations. Never: what a backend is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from kumafast.errors import Violation


class Named(Protocol):
    """A backend, as far as it is chosen by its name."""

    @property
    def name(self) -> str: ...


Backend = TypeVar("Backend", bound=Named)


def chosen(name: str, backends: Iterable[Backend]) -> Backend | None:
    """The backend of a name; None where there is none, or no name."""
    return next((backend for backend in backends if name and backend.name == name), None)


def used_before(backends: Sequence[Named]) -> Iterator[bool]:
    """For each backend whether one before it has its name."""
    names: set[str] = set()
    for backend in backends:
        yield backend.name in names
        names.add(backend.name)


def check_unique(path: str, name: str, *, is_used: bool) -> Iterator[Violation]:
    """A name is that of one backend only."""
    if is_used:
        yield Violation(f"{path}.name", f'"{name}" name is already used for another backend')


def check_chosen(path: str, name: str, backends: Sequence[Named], message: str) -> Iterator[Violation]:
    """A name that chooses a backend is that of one."""
    if name and chosen(name, backends) is None:
        yield Violation(path, message)
