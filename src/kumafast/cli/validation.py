"""Check documents before they are sent, by the rules that the server will check.

In: a document. Out: what is wrong with it. Never: a verdict on types not known here.
"""

from __future__ import annotations

from typing import Any

from kumafast import resources
from kumafast.errors import MalformedResourceError
from kumafast.resources import catalog
from kumafast.resources.resource import Scope


def is_known(document: dict[str, Any]) -> bool:
    """Whether the document's type is one of those that this version knows."""
    return catalog.by_name(document["type"]) is not None


def fill_mesh(document: dict[str, Any]) -> None:
    """Put a resource that belongs to a mesh and names none into `default`, as kumactl does."""
    kind = catalog.by_name(document["type"])
    if kind is not None and kind.scope is Scope.MESH and document.get("mesh") is None:
        document["mesh"] = "default"


def violations(document: dict[str, Any]) -> list[str]:
    """Every rule that a document of a known type breaks, as `field: message`."""
    try:
        found = resources.validate(resources.parse(document))
    except MalformedResourceError as error:
        if not error.violations:
            return [error.detail]
        found = error.violations
    return [f"{violation.field}: {violation.message}" for violation in found]
