"""What people ask about one service: its instances, and the names that it has.

In: a MeshService, MeshExternalService or MeshMultiZoneService. Out: Kuma's documents `…/_dataplanes` (and
`…/_resources/dataplanes`) and `…/_hostnames`, of what is stored by then. Never: a look at every dataplane.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kumafast.resources import MeshExternalService, MeshMultiZoneService, MeshService, Resource
from kumafast.resources.resource import ResourceKey, ResourceType
from kumafast.resources.virtual_ip import Holder
from kumafast.rest.endpoint import fixed
from kumafast.rest.errors import json_response
from kumafast.rest.inspection import meta
from kumafast.rest.paging import next_page, window
from kumafast.rest.services import ApiServices
from kumafast.rest.statuses import Statuses

_KINDS = (MeshService, MeshExternalService, MeshMultiZoneService)


def service_routes(services: ApiServices) -> list[Route]:
    """The paths of these questions."""
    answers = _Answers(services)
    pages = ("size", "offset", "name")
    routes = [
        Route(f"/meshes/{{mesh}}/meshservices/{{name}}/{path}", fixed({"GET": answers.dataplanes}, query=pages))
        for path in ("_dataplanes", "_resources/dataplanes")
    ]
    for kind in _KINDS:
        endpoint = fixed({"GET": partial(answers.hostnames, kind.type)})
        routes.append(Route(f"/meshes/{{mesh}}/{kind.type.path}/{{name}}/_hostnames", endpoint))
    return routes


class _Answers:
    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._statuses = Statuses(services.picture)

    async def dataplanes(self, request: Request) -> Response:
        """A page of the instances of a service."""
        part = window(request)
        service = await self._find(MeshService.type, request)
        assert isinstance(service, MeshService)
        wanted = request.query_params.get("name", "")
        found = [each for each in self._statuses.instances(service) if wanted in each.name]
        found.sort(key=lambda each: each.name)
        items = [meta(dataplane) for dataplane in part.of(found)]
        following = next_page(request, total=len(found), window=part)
        return json_response({"items": items, "total": len(found), **({"next": following} if following else {})})

    async def hostnames(self, kind: ResourceType, request: Request) -> Response:
        """The names of a service, each with the zones where it is known: this one."""
        service = await self._find(kind, request)
        state = self._services.picture.state(service.mesh)
        names = () if state is None else state.hostnames.names(Holder(kind.name, service.name))
        zones = [{"name": self._services.zone}]
        items = [{"hostname": name, "zones": zones} for name in sorted(names)]
        return json_response({"items": items, "total": len(items)})

    async def _find(self, kind: ResourceType, request: Request) -> Resource:
        stored = await self._services.store.get(
            ResourceKey(kind.name, request.path_params["mesh"], request.path_params["name"])
        )
        await self._services.settle()
        return stored.resource
