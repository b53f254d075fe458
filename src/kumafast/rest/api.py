"""The API on 5681: which path is answered by what.

In: the services. Out: an ASGI application. Never: answers; each has its module.

Resource types are found in the catalogue when a request comes, so one set of routes serves all of them, and a lookup
costs the same for the fifth type as for the fiftieth.
"""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from kumafast.resources import catalog
from kumafast.resources.resource import ResourceType, Scope
from kumafast.rest import index, openapi, tokens
from kumafast.rest.access import Guard
from kumafast.rest.attachments import Attachments
from kumafast.rest.convergence import convergence
from kumafast.rest.documents import Documents
from kumafast.rest.dry_runs import DIFF_REQUEST, DryRuns
from kumafast.rest.endpoint import TEXT_TYPE, UNKNOWN_PATH, Endpoint, Methods, fixed
from kumafast.rest.errors import UnknownPathError
from kumafast.rest.explanations import explain_policy, explain_proxy
from kumafast.rest.identifiers import show_by_identifier
from kumafast.rest.overview import Overview
from kumafast.rest.paging import LIST_QUERY
from kumafast.rest.proxy_config import show_config
from kumafast.rest.proxy_policies import ProxyPolicies
from kumafast.rest.reads import Reader
from kumafast.rest.rejections import rejections
from kumafast.rest.rules import show_rules
from kumafast.rest.service_answers import service_routes
from kumafast.rest.services import ApiServices
from kumafast.rest.statuses import Statuses
from kumafast.rest.writes import Writer


def create_api(services: ApiServices) -> Guard:
    """The API as an ASGI application, behind its door."""
    documents = Documents(zone=services.zone, status_of=Statuses(services.picture).of)
    dry_runs = DryRuns(services.store, services.foresee, zone=services.zone, creates_routes=services.creates_routes)
    writer = Writer(services.store, dry_runs, zone=services.zone, creates_routes=services.creates_routes)
    types = _TypeEndpoints(Reader(services.store, documents, services.settle), writer)
    overview = Overview(services.store, documents)
    routes = [
        *_overview_routes(overview),
        Route("/meshes/{mesh}/_diff", fixed({"POST": dry_runs.diff}, body=DIFF_REQUEST)),
        Route("/meshes/{mesh}/_rejections", fixed({"GET": rejections(services)})),
        Route("/_diff", fixed({"POST": dry_runs.diff}, body=DIFF_REQUEST)),
        *_proxy_routes(services, documents),
        *service_routes(services),
        *_policy_routes(services, documents),
        Route("/meshes/{mesh}/{path}/{name}", Endpoint(partial(types.item, Scope.MESH))),
        Route("/meshes/{mesh}/{path}", Endpoint(types.of_mesh)),
        Route("/", fixed({"GET": index.index(services)})),
        Route("/config", fixed({"GET": index.config(services)})),
        Route("/policies", fixed({"GET": index.show_policies})),
        Route("/who-am-i", fixed({"GET": index.who_am_i})),
        *_token_routes(services),
        Route("/global-insights", fixed({"GET": index.global_insights(services)})),
        Route("/_resources", fixed({"GET": index.show_resource_types})),
        Route("/_kri/{kri}", fixed({"GET": show_by_identifier(services.store, documents, zone=services.zone)})),
        Route("/_convergence", fixed({"GET": convergence(services)}, query=("revision", "since", "timeout"))),
    ]
    routes += [
        Route("/openapi.json", fixed({"GET": openapi.describe(routes, version=services.kuma_version)})),
        Route("/{path}/{name}", Endpoint(partial(types.item, Scope.GLOBAL))),
        Route("/{path}", Endpoint(types.everywhere)),
        Route("/{rest:path}", UNKNOWN_PATH),
    ]
    return Guard(Starlette(routes=routes), services.access)


def _token_routes(services: ApiServices) -> list[Route]:
    keys = services.token_keys
    dataplane = {"POST": tokens.dataplane_token(keys)}
    user = {"POST": tokens.user_token(keys)}
    return [
        Route("/tokens/dataplane", fixed(dataplane, body=tokens.DATAPLANE_REQUEST, media_type=TEXT_TYPE)),
        Route("/tokens/user", fixed(user, body=tokens.USER_REQUEST, media_type=TEXT_TYPE)),
    ]


def _overview_routes(overview: Overview) -> list[Route]:
    items = fixed({"GET": overview.list}, query=(*LIST_QUERY, "tag", "status", "gateway"))
    item = fixed({"GET": overview.show})
    return [
        Route("/meshes/{mesh}/dataplanes/_overview", items),
        Route("/meshes/{mesh}/dataplanes/{name}/_overview", item),
        Route("/dataplanes/_overview", items),
        # The names from before `_overview`; Kuma's older clients still ask for them.
        Route("/meshes/{mesh}/dataplanes+insights", items),
        Route("/meshes/{mesh}/dataplanes+insights/{name}", item),
        Route("/dataplanes+insights", items),
    ]


def _policy_routes(services: ApiServices, documents: Documents) -> list[Route]:
    attachments = Attachments(services, documents)
    pages = ("size", "offset", "name")
    endpoints = {
        "_explanation": fixed({"GET": explain_policy(services)}, query=pages),
        "_resources/dataplanes": fixed({"GET": attachments.selected}, query=pages),
        "dataplanes": fixed({"GET": attachments.attached}),
    }
    return [Route(f"/meshes/{{mesh}}/{{path}}/{{name}}/{path}", endpoint) for path, endpoint in endpoints.items()]


def _proxy_routes(services: ApiServices, documents: Documents) -> list[Route]:
    endpoints = {
        "_rules": fixed({"GET": show_rules(services)}),
        "_explanation": fixed({"GET": explain_proxy(services)}),
        "_config": fixed({"GET": show_config(services)}, query=("shadow", "include")),
        "policies": fixed({"GET": Attachments(services, documents).policies}),
        **ProxyPolicies(services).endpoints(),
    }
    return [Route(f"/meshes/{{mesh}}/dataplanes/{{name}}/{path}", endpoint) for path, endpoint in endpoints.items()]


class _TypeEndpoints:
    """Which methods the paths of a resource type have. A path of no type raises `UnknownPathError`."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    def item(self, scope: Scope, request: Request) -> Methods:
        kind = _kind(request)
        if kind.scope is not scope:
            raise UnknownPathError
        methods = {"GET": partial(self._reader.show, kind)}
        if not kind.is_read_only:
            methods["PUT"] = partial(self._writer.put, kind)
            methods["DELETE"] = partial(self._writer.delete, kind)
        return methods

    def of_mesh(self, request: Request) -> Methods:
        kind = _kind(request)
        if kind.scope is not Scope.MESH:
            raise UnknownPathError
        return {"GET": partial(self._reader.list, kind)}

    def everywhere(self, request: Request) -> Methods:
        return {"GET": partial(self._reader.list, _kind(request))}


def _kind(request: Request) -> ResourceType:
    kind = catalog.by_path(request.path_params["path"])
    if kind is None:
        raise UnknownPathError
    return kind
