"""Every document that is refused as a value is refused over HTTP with the same violations, and nothing is stored."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from tests.resources.bad_documents import BAD_DOCUMENTS
from tests.rest.fakes import error, everything

from kumafast.errors import Violation
from kumafast.resources import catalog
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio


def _can_be_sent(document: object) -> bool:
    # The type of a request is that of its path; documents without a known one have their own cases elsewhere.
    name = document.get("type") if isinstance(document, dict) else None
    kind = catalog.by_name(name) if isinstance(name, str) else None
    if kind is None or kind.is_read_only:
        return False
    try:
        return bool(orjson.loads(orjson.dumps(document)) == document)
    except TypeError:
        return False


CASES = [case for case in BAD_DOCUMENTS if _can_be_sent(case[1])]


def test_most_bad_documents_can_be_sent() -> None:
    assert len(CASES) >= 0.9 * len(BAD_DOCUMENTS)


def _address(document: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """A path for the document, and how the document differs from it where its own name or mesh is no part of a path."""
    name, mesh, differences = document.get("name"), document.get("mesh"), []
    if not isinstance(name, str) or not name or "/" in name or len(name) > 1000:
        name = "web-1"
        differences.append(("name", "name from the URL has to be the same as in body"))
    if document["type"] == "Mesh":
        return f"/meshes/{quote(name)}", differences
    if mesh != "default":
        differences.append(("mesh", "mesh from the URL has to be the same as in body"))
    kind = catalog.by_name(document["type"])
    assert kind is not None
    return f"/meshes/default/{kind.path}/{quote(name)}", differences


@pytest.mark.parametrize(("case", "document", "kind", "violations"), CASES, ids=[case[0] for case in CASES])
async def test_refused(
    client: httpx.AsyncClient,
    store: MemoryStore,
    case: str,
    document: dict[str, Any],
    kind: str,
    violations: list[Violation],
) -> None:
    before = await everything(store)
    path, differences = _address(document)
    answer = await client.put(path, content=orjson.dumps(document))
    found = [(violation.field, violation.message) for violation in violations]
    if kind == "malformed":
        detail = "; ".join(f"{field}: {message}" for field, message in found)
        expected = error(400, "Bad Request", detail, *found)
    else:
        expected = error(400, "Could not process a resource", "Resource is not valid", *differences, *found)
    assert answer.status_code == 400
    assert answer.json() == expected
    assert await everything(store) == before
    assert (await client.get("/meshes/default")).status_code == 200
