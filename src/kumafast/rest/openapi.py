"""The API's description of itself.

In: the route table, the catalogue of resource types with its models. Out: an OpenAPI 3.1 document. Never: a path, a
method or a field that is written here by hand; what the server does not serve cannot be described.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import orjson
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaWarningKind, models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kumafast.resources import catalog
from kumafast.resources.resource import Resource, ResourceType, Scope
from kumafast.rest.endpoint import JSON_TYPE, Endpoint, Handler
from kumafast.rest.errors import encoded_response
from kumafast.rest.paging import LIST_QUERY

Json = dict[str, Any]

WRITE_QUERY: Final = ("dry_run",)
"""What writes understand: with `true` they say what they would do."""

_REFERENCE: Final = "#/components/schemas/"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_ERROR: Final[Json] = {
    "type": "object",
    "required": ["type", "status", "title", "detail"],
    "properties": {
        "type": {"const": "/std-errors"},
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "detail": {"type": "string"},
        "invalid_parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "details": {"type": "string", "deprecated": True},
        "causes": {"type": "array", "items": {"type": "object"}, "deprecated": True},
    },
}
_SECURITY: Final[Json] = {"userToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
_WRITTEN: Final[Json] = {
    "type": "object",
    "properties": {"warnings": {"type": "array", "items": {"type": "string"}}},
}


def describe(routes: Iterable[Route], *, version: str) -> Handler:
    """`GET /openapi.json`. The document is made when it is first asked for."""
    described = [route for route in routes if isinstance(route.app, Endpoint)]

    @cache
    def encoded() -> bytes:
        return orjson.dumps(document(described, version=version))

    async def show(_: Request) -> Response:
        """This description."""
        return encoded_response(encoded())

    return show


def document(routes: Sequence[Route], *, version: str) -> Json:
    """The OpenAPI document of fixed routes and of all types in the catalogue."""
    paths: dict[str, Json] = {}
    for route in routes:
        if isinstance(route.app, Endpoint) and route.app.methods:
            paths[route.path] = _fixed_path(route.path, route.app)
    for kind in catalog.RESOURCE_TYPES:
        paths.update(_type_paths(kind))
    schemas = {"Error": _ERROR, "Written": _WRITTEN, **_model_schemas()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Kuma's API, served by kumafast", "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
        # Or none: being on the control plane's own machine may be enough, and reading may need nothing.
        "security": [{name: []} for name in _SECURITY] + [{}],
    }


def _fixed_path(path: str, endpoint: Endpoint) -> Json:
    methods = {
        method.lower(): _operation(summary=_first_line(handler), success={"type": "object"}, query=endpoint.query)
        for method, handler in endpoint.methods.items()
    }
    if endpoint.body is not None:
        methods["post"]["requestBody"] = {"required": True, "content": _json(dict(endpoint.body))}
    if endpoint.media_type != JSON_TYPE:
        for operation in methods.values():
            operation["responses"]["200"]["content"] = {endpoint.media_type: {"schema": {"type": "string"}}}
    return _with_parameters(path, methods)


def _type_paths(kind: ResourceType) -> dict[str, Json]:
    model = {"$ref": f"{_REFERENCE}{kind.name}"}
    listed = {
        "type": "object",
        "required": ["total", "items", "next"],
        "properties": {
            "total": {"type": "integer"},
            "items": {"type": "array", "items": model},
            "next": {"type": ["string", "null"]},
        },
    }
    prefix = "/meshes/{mesh}" if kind.scope is Scope.MESH else ""
    collection, item = f"{prefix}/{kind.path}", f"{prefix}/{kind.path}/{{name}}"
    item_methods = {"get": _operation(summary=f"One {kind.singular}", success=model)}
    if not kind.is_read_only:
        written = {"$ref": f"{_REFERENCE}Written"}
        put = _operation(summary=f"Create or replace a {kind.singular}", success=written, query=WRITE_QUERY)
        put["responses"]["201"] = {**put["responses"]["200"], "description": "Created"}
        put["requestBody"] = {"required": True, "content": {"application/json": {"schema": model}}}
        item_methods["put"] = put
        item_methods["delete"] = _operation(summary=f"Delete a {kind.singular}", success=written, query=WRITE_QUERY)
    listing = {"get": _operation(summary=f"A page of {kind.plural}", success=listed, query=LIST_QUERY)}
    paths = {collection: _with_parameters(collection, listing), item: _with_parameters(item, item_methods)}
    if kind.scope is Scope.MESH:
        everywhere = _operation(summary=f"A page of {kind.plural} of all meshes", success=listed, query=LIST_QUERY)
        paths[f"/{kind.path}"] = {"get": everywhere}
    return paths


def _operation(*, summary: str, success: Json, query: Sequence[str] = ()) -> Json:
    operation: Json = {"summary": summary}
    if query:
        operation["parameters"] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in query]
    error = {"description": "Refused or failed", "content": _json({"$ref": f"{_REFERENCE}Error"})}
    operation["responses"] = {"200": {"description": "Done", "content": _json(success)}, "default": error}
    return operation


def _json(schema: Json) -> Json:
    return {JSON_TYPE: {"schema": schema}}


def _with_parameters(path: str, methods: Json) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    return {**({"parameters": parameters} if parameters else {}), **methods}


class _SchemaGenerator(GenerateJsonSchema):
    # The defaults of maps are read-only values, which pydantic does not know how to write; they are all empty.
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _model_schemas() -> Json:
    models = [catalog.model_of(kind.name) for kind in catalog.RESOURCE_TYPES]
    modes: list[tuple[type[Resource], JsonSchemaMode]] = [(model, "validation") for model in models]
    _, schemas = models_json_schema(
        modes, by_alias=True, ref_template=f"{_REFERENCE}{{model}}", schema_generator=_SchemaGenerator
    )
    definitions: Json = schemas["$defs"]
    for model in models:
        # The type is a constant of the class and not a field of the model, but documents carry it.
        definitions[model.type.name].setdefault("properties", {})["type"] = {"const": model.type.name}
    return definitions


def _first_line(handler: Handler) -> str:
    return (handler.__doc__ or "").partition("\n")[0]
