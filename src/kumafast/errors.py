"""Every error that kumafast raises on purpose.

In: what went wrong, in words for the person who can mend it. Out: exceptions that front ends translate
(REST to a status, the CLI to an exit code). Never: anything that depends on another part of kumafast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks a rule: a path such as `networking.inbound[0].tags["version"]` and the reason."""

    field: str
    message: str


class KumafastError(Exception):
    """The root of kumafast's errors."""


class MalformedResourceError(KumafastError):
    """A document that cannot be read as a resource: not an object, an unknown type, a number where text belongs."""

    def __init__(self, detail: str, violations: Iterable[Violation] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.violations = tuple(violations)


class UnknownTypeError(MalformedResourceError):
    """A document of a type that this kumafast does not know; a newer one may."""


class ModificationError(KumafastError):
    """What a user wants to be changed in Envoy's resources cannot be done to the resources that are there."""

    def __init__(self, message: str, *, resource: tuple[str, str] | None = None) -> None:
        """`resource` is the kind and name of the one that it cannot be done to, where it is one."""
        super().__init__(message)
        self.resource = resource


class InvalidResourceError(KumafastError):
    """A well-formed resource that breaks rules; carries all violations, in the order of the rules."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.message}" for v in self.violations))


class NotFoundError(KumafastError):
    """The resource is not in the store."""


class MeshNotFoundError(NotFoundError):
    """A resource names a mesh that is not in the store."""

    def __init__(self, mesh: str) -> None:
        super().__init__(f"mesh of name {mesh} is not found")
        self.mesh = mesh


class MeshInUseError(KumafastError):
    """A mesh cannot be deleted while dataplanes are in it."""

    def __init__(self, mesh: str) -> None:
        super().__init__(f"unable to delete mesh {mesh}, there are still some dataplanes attached")
        self.mesh = mesh


class ConflictError(KumafastError):
    """Somebody else wrote the resource since the caller read it, or it exists already."""


class CompactedError(KumafastError):
    """The changes after the requested revision are no longer kept: list again, then watch from the list's revision."""


class StoreUnavailableError(KumafastError):
    """The store cannot be written now; what was read before stays true."""


class SettingsError(KumafastError):
    """A setting that cannot be used; the message names it and says what to do."""
