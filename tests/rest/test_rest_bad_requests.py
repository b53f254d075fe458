"""Requests that are refused: each with its exact status and answer, nothing stored, the server alive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from tests.rest.fakes import dataplane_document, error, everything

from kumafast.rest.body import BODY_BYTES_MAX, NESTING_MAX
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

ITEM = "/meshes/default/dataplanes/web-1"
LIST = "/meshes/default/dataplanes"
NOT_FOUND = "404: Page Not Found"
PROCESS = "Could not process a resource"
INVALID = "Resource is not valid"
RETRIEVE = "Could not retrieve a resource"
LISTS = "Could not retrieve resources"
NAME = ("name", "name from the URL has to be the same as in body")
TYPE = ("type", "type from the URL has to be the same as in body")
NOT_JSON = "the body is not JSON: "
MESH = ("mesh", "mesh from the URL has to be the same as in body")
EMPTY_NAME = ("name", "cannot be empty")
EMPTY_MESH = ("mesh", "cannot be empty")
SUBDOMAIN = (
    "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character"
)


@dataclass(frozen=True)
class Refusal:
    """One request and its answer. `answer` is the JSON document, or text where that is what the server sends."""

    case: str
    method: str
    path: str
    answer: dict[str, Any] | str
    content: bytes | None = None

    @property
    def status(self) -> int:
        return int(self.answer["status"]) if isinstance(self.answer, dict) else 404


def _not_json(case: str, content: bytes) -> Refusal:
    return Refusal(case, "PUT", ITEM, error(400, "Bad Request", NOT_JSON), content)


def _no_object(case: str, content: bytes, what: str) -> Refusal:
    detail = f"the body must be a JSON object, not {what}"
    return Refusal(case, "PUT", ITEM, error(400, "Bad Request", detail), content)


def _invalid(case: str, path: str, document: dict[str, Any], *violations: tuple[str, str]) -> Refusal:
    return Refusal(case, "PUT", path, error(400, PROCESS, INVALID, *violations), orjson.dumps(document))


def _query(case: str, path: str, detail: str, field: str, reason: str, title: str = LISTS) -> Refusal:
    return Refusal(case, "GET", path, error(400, title, detail, (field, reason)))


def _method(method: str, path: str) -> Refusal:
    detail = f"{method} is not allowed at {path}"
    return Refusal(f"{method} {path}", method, path, error(405, "Method not Allowed", detail), b"{}")


def _nothing(method: str, path: str) -> Refusal:
    return Refusal(f"{method} {path}", method, path, NOT_FOUND, b"{}")


def _without(*fields: str, **over: Any) -> dict[str, Any]:
    return {key: value for key, value in dataplane_document(**over).items() if key not in fields}


TOO_DEEP = b'{"a":' * NESTING_MAX + b"{}" + b"}" * NESTING_MAX
LONG_NAME = "a" * 254
BODIES = [
    _not_json("empty", b""),
    _not_json("blank", b"  \n"),
    _not_json("cut", b"{"),
    _not_json("cut-text", b'{"type": "Data'),
    _not_json("comma", b'{"type": "Mesh",}'),
    _not_json("two", b"{}{}"),
    _not_json("yaml", b"type: Dataplane\nname: web-1\n"),
    _not_json("xml", b"<a/>"),
    _not_json("single-quotes", b"{'type': 'Mesh'}"),
    _not_json("nan", b'{"a": NaN}'),
    _not_json("infinity", b'{"a": Infinity}'),
    _not_json("too-great", b'{"a": 1e999}'),
    _not_json("half-surrogate", b'{"a": "\\ud800"}'),
    _not_json("latin-1", b'{"a": "\xe9"}'),
    _not_json("utf-16", '{"a": 1}'.encode("utf-16")),
    _not_json("bom", b"\xef\xbb\xbf{}"),
    _not_json("control", b'{"a": "\x01"}'),
    _not_json("endless-nesting", b"[" * 100_000),
    _no_object("null", b"null", "null"),
    _no_object("boolean", b"true", "a boolean"),
    _no_object("number", b"7", "a number"),
    _no_object("fraction", b"1e3", "a number"),
    _no_object("string", b'"Dataplane"', "a string"),
    _no_object("array", b"[{}]", "an array"),
    Refusal(
        "too-deep",
        "PUT",
        ITEM,
        error(400, "Bad Request", f"the body is nested more than {NESTING_MAX} levels deep"),
        TOO_DEEP,
    ),
    Refusal(
        "too-long",
        "PUT",
        ITEM,
        error(413, PROCESS, f"the body must not be longer than {BODY_BYTES_MAX} bytes"),
        b" " * (BODY_BYTES_MAX + 1),
    ),
]
IDENTITIES = [
    _invalid("nothing", ITEM, {}, NAME, TYPE, MESH, EMPTY_NAME, EMPTY_MESH, ("networking", "must be defined")),
    _invalid("no-name", ITEM, _without("name"), NAME, EMPTY_NAME),
    _invalid("null-name", ITEM, dataplane_document(name=None), NAME, EMPTY_NAME),  # type: ignore[arg-type]
    _invalid("other-name", ITEM, dataplane_document("web-2"), NAME),
    _invalid("no-type", ITEM, _without("type"), TYPE),
    _invalid("other-type", ITEM, dataplane_document(type="Mesh"), TYPE),
    _invalid("unknown-type", ITEM, dataplane_document(type="Sidecar"), TYPE),
    _invalid("number-type", ITEM, dataplane_document(type=7), TYPE),
    _invalid("no-mesh", ITEM, _without("mesh"), MESH, EMPTY_MESH),
    _invalid("other-mesh", ITEM, dataplane_document(mesh="shop"), MESH),
    _invalid("upper-case", f"{LIST}/WEB", dataplane_document("WEB"), ("name", SUBDOMAIN)),
    _invalid("space", f"{LIST}/web%201", dataplane_document("web 1"), ("name", SUBDOMAIN)),
    _invalid("nul", f"{LIST}/web%00", dataplane_document("web\0"), ("name", SUBDOMAIN)),
    _invalid("unicode", f"{LIST}/w%C3%A9b", dataplane_document("wéb"), ("name", SUBDOMAIN)),
    _invalid("reserved", f"{LIST}/_overview2", dataplane_document("_overview2"), ("name", SUBDOMAIN)),
    _invalid(
        "long",
        f"{LIST}/{LONG_NAME}",
        dataplane_document(LONG_NAME),
        ("name", "value length must less or equal 253"),
    ),
    _invalid("mesh-name", "/meshes/Default", {"type": "Mesh", "name": "Default"}, ("name", SUBDOMAIN)),
    _invalid("mesh-other-name", "/meshes/shop", {"type": "Mesh", "name": "store"}, NAME),
    _invalid("mesh-other-type", "/meshes/shop", {"type": "Dataplane", "name": "shop"}, TYPE),
    Refusal(
        "unknown-mesh",
        "PUT",
        "/meshes/nope/dataplanes/web-1",
        error(404, "Failed to retrieve Mesh", "Not found", ("mesh", "mesh of name nope is not found")),
        orjson.dumps(dataplane_document(mesh="nope")),
    ),
    Refusal(
        "number-name",
        "PUT",
        ITEM,
        error(400, "Bad Request", "name: must be a string", ("name", "must be a string")),
        orjson.dumps({**dataplane_document(), "name": 0}),
    ),
]
FORMAT = "invalid format"
QUERIES = [
    _query("size-0", f"{LIST}?size=0", "Invalid page size", "size", FORMAT),
    _query("size-negative", f"{LIST}?size=-1", "Invalid page size", "size", FORMAT),
    _query("size-text", f"{LIST}?size=many", "Invalid page size", "size", FORMAT),
    _query("size-fraction", f"{LIST}?size=1.5", "Invalid page size", "size", FORMAT),
    _query("size-arabic", f"{LIST}?size=%D9%A3", "Invalid page size", "size", FORMAT),
    _query("size-endless", f"{LIST}?size={'9' * 5000}", "Invalid page size", "size", FORMAT),
    _query(
        "size-1001",
        f"{LIST}?size=1001",
        "Invalid page size",
        "size",
        "invalid page size of 1001. Maximum page size is 1000",
    ),
    _query("offset-text", f"{LIST}?offset=x", "Invalid offset", "offset", FORMAT),
    _query("offset-negative", f"{LIST}?offset=-1", "Invalid offset", "offset", FORMAT),
    _query("meshes-size", "/meshes?size=0", "Invalid page size", "size", FORMAT),
    _query("everywhere-size", "/dataplanes?size=0", "Invalid page size", "size", FORMAT),
    _query(
        "filter-unknown",
        f"{LIST}?filter[name]=web",
        "Invalid filter",
        "filter[name]",
        "only filter[labels.KEY]=VALUE is understood",
    ),
    _query(
        "filter-twice",
        f"{LIST}?filter[labels.a]=1&filter[labels.a]=2",
        "Invalid filter",
        "filter[labels.a]",
        "must not be given twice with different values",
    ),
    _query("tag-form", f"{LIST}/_overview?tag=version", "Invalid tag", "tag", "must have the form KEY:VALUE"),
    _query("tag-key", f"{LIST}/_overview?tag=:v1", "Invalid tag", "tag", "must have the form KEY:VALUE"),
    _query("status", f"{LIST}/_overview?status=asleep", "Invalid status", "status", "must be one of: online, offline"),
    _query(
        "gateway",
        f"{LIST}/_overview?gateway=maybe",
        "Invalid gateway",
        "gateway",
        "must be one of: true, false, builtin, delegated",
    ),
    _query(
        "revision",
        "/_convergence",
        "Invalid revision",
        "revision",
        "must be a revision of the store, as in the header X-Kumafast-Revision of a write",
    ),
    _query(
        "timeout",
        "/_convergence?revision=1&timeout=soon",
        "Invalid timeout",
        "timeout",
        "must be a duration such as 10s, 500ms or 2m",
    ),
    _query(
        "timeout-long",
        "/_convergence?revision=1&timeout=11m",
        "Invalid timeout",
        "timeout",
        "must be more than 0 and at most 600s",
    ),
]
MISSING = [
    Refusal("item", "GET", ITEM, error(404, RETRIEVE, "Not found")),
    Refusal("mesh", "GET", "/meshes/nope", error(404, RETRIEVE, "Not found")),
    Refusal("overview", "GET", f"{ITEM}/_overview", error(404, RETRIEVE, "Not found")),
    Refusal("delete", "DELETE", ITEM, error(404, "Could not delete a resource", "Not found")),
    Refusal(
        "list-of-unknown-mesh",
        "GET",
        "/meshes/nope/dataplanes",
        error(404, "Failed to retrieve Mesh", "Not found", ("mesh", "mesh of name nope is not found")),
    ),
    _nothing("GET", "/nope"),
    _nothing("PUT", "/nope"),
    _nothing("GET", "/meshes/default/nope"),
    _nothing("PUT", "/meshes/default/nope/x"),
    _nothing("DELETE", "/meshes/default/nope/x"),
    _nothing("GET", "/meshes/default/meshes/default"),
    _nothing("PUT", "/dataplanes/web-1"),
    _nothing("GET", "/meshes/default/dataplanes/web-1/nope"),
    _nothing("GET", "/meshes/default/dataplanes/web-1/"),
    _nothing("GET", "/a/b/c/d/e"),
]
METHODS = [
    _method("POST", ITEM),
    _method("PATCH", ITEM),
    _method("TRACE", ITEM),
    _method("POST", LIST),
    _method("PUT", LIST),
    _method("DELETE", LIST),
    _method("DELETE", "/meshes"),
    _method("PUT", "/dataplanes"),
    _method("PUT", "/meshes/default/dataplane-insights/web-1"),
    _method("DELETE", "/meshes/default/dataplane-insights/web-1"),
    _method("POST", "/"),
    _method("PUT", "/_resources"),
    _method("DELETE", f"{LIST}/_overview"),
    _method("BREW", "/config"),
]
ALL = [*BODIES, *IDENTITIES, *QUERIES, *MISSING, *METHODS]


def _without_parser(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what the JSON library says, whose words are its own."""
    cut = {key: NOT_JSON for key in ("detail", "details") if str(document.get(key)).startswith(NOT_JSON)}
    return {**document, **cut}


def test_there_are_many() -> None:
    assert len(ALL) >= 60
    assert len({(refusal.method, refusal.path, refusal.content) for refusal in ALL}) == len(ALL)


@pytest.mark.parametrize("refusal", ALL, ids=[refusal.case for refusal in ALL])
async def test_refused(client: httpx.AsyncClient, store: MemoryStore, refusal: Refusal) -> None:
    before = await everything(store)
    answer = await client.request(refusal.method, refusal.path, content=refusal.content)
    assert answer.status_code == refusal.status
    if isinstance(refusal.answer, str):
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.text == refusal.answer
    else:
        assert answer.headers["Content-Type"] == "application/json"
        assert _without_parser(answer.json()) == refusal.answer
    assert await everything(store) == before
    assert (await client.get("/meshes/default")).status_code == 200


async def test_body_of_unknown_length_is_limited_too(client: httpx.AsyncClient, store: MemoryStore) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * BODY_BYTES_MAX:
            sent += 65_536
            yield b" " * 65_536

    answer = await client.put(ITEM, content=endless())
    assert answer.status_code == 413
    assert sent < 2 * BODY_BYTES_MAX


@pytest.mark.parametrize("length", ["9" * 10, "9" * 10_000])
async def test_announced_length_is_believed(client: httpx.AsyncClient, length: str) -> None:
    answer = await client.put(ITEM, content=b"{}", headers={"Content-Length": length})
    assert answer.status_code == 413


async def test_longest_body_that_is_read(client: httpx.AsyncClient) -> None:
    document = orjson.dumps(dataplane_document())
    answer = await client.put(ITEM, content=document + b" " * (BODY_BYTES_MAX - len(document)))
    assert answer.status_code == 201


async def test_last_of_two_equal_keys_counts(client: httpx.AsyncClient) -> None:
    answer = await client.put("/meshes/shop", content=b'{"type": "Mesh", "name": "store", "name": "shop"}')
    assert answer.status_code == 201


@pytest.mark.parametrize("header", ["x", '"a"', "-1", "1, 2", "9" * 5000])
async def test_condition_that_is_none(client: httpx.AsyncClient, store: MemoryStore, header: str) -> None:
    before = await everything(store)
    answer = await client.put(ITEM, json=dataplane_document(), headers={"If-Match": header})
    violation = ("If-Match", "must be the ETag of one revision")
    assert answer.status_code == 400
    assert answer.json() == error(400, PROCESS, "Invalid If-Match", violation)
    assert await everything(store) == before


async def test_allow_names_the_methods(client: httpx.AsyncClient) -> None:
    assert (await client.post(ITEM)).headers["Allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"
    assert (await client.post("/meshes/default/dataplane-insights/x")).headers["Allow"] == "GET, HEAD, OPTIONS"
    options = await client.options(LIST)
    assert (options.status_code, options.headers["Allow"], options.content) == (204, "GET, HEAD, OPTIONS", b"")


async def test_head_is_as_get(client: httpx.AsyncClient) -> None:
    get, head = await client.get("/meshes/default"), await client.head("/meshes/default")
    assert head.status_code == 200
    assert head.headers == get.headers
    assert (await client.head(ITEM)).status_code == 404
