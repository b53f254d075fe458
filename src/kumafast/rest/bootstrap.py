"""`POST /bootstrap` on the dp-server: what a launcher needs to start its Envoy.

In: the request of a launcher (ours or kuma-dp), the store. Out: a bootstrap, and the dataplane registered where the
request brings one. Never: xDS, or how a bootstrap is made; `generation` knows that.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kumafast import resources
from kumafast.errors import (
    InvalidResourceError,
    MalformedResourceError,
    MeshNotFoundError,
    NotFoundError,
    Violation,
)
from kumafast.generation import bootstrap as generation
from kumafast.generation.proxy import AdminInterface
from kumafast.identity.admission import admit
from kumafast.identity.tokens import DataplaneClaims, TokenError, TokenMismatchError, Verified, bearer
from kumafast.resources import Dataplane, DataplaneInsight
from kumafast.resources.dataplane_insight import ONLINE
from kumafast.resources.fields import FrozenMap
from kumafast.resources.resource import ResourceKey
from kumafast.resources.tags import AWAITS_PROXY_LABEL, SERVICE_TAG
from kumafast.rest.body import parse_object, read_object
from kumafast.rest.certificate import authority_for
from kumafast.rest.endpoint import UNKNOWN_PATH, fixed
from kumafast.rest.errors import UnreachableError, json_response, std_error
from kumafast.rest.launch_request import LaunchRequest, read_launch_request
from kumafast.rest.proposals import parse
from kumafast.rest.services import DpServices

_TITLE: Final = "Could not make a bootstrap"
_LOOPBACK: Final = "127.0.0.1"
_ADMIN_SOCKET: Final = "kuma-envoy-admin.sock"
# An IPv6 address in brackets, or a name or IPv4 address; then a port where it is not the scheme's own.
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([a-zA-Z0-9._-]{1,253}))(?::([0-9]{1,5}))?", re.ASCII)
# The length of `sun_path` in Linux' sockaddr_un, less its closing NUL.
_SOCKET_PATH_BYTES_MAX: Final = 107


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the client reached this control plane: its Envoy will do the same."""

    host: str
    port: int


def create_dp_app(services: DpServices) -> Starlette:
    """The HTTP side of the dp-server as an ASGI application."""
    bootstrap = _Bootstrap(services)
    return Starlette(
        routes=[Route("/bootstrap", fixed({"POST": bootstrap.answer})), Route("/{rest:path}", UNKNOWN_PATH)]
    )


class _Bootstrap:
    def __init__(self, services: DpServices) -> None:
        self._services = services

    async def answer(self, request: Request) -> Response:
        """The bootstrap of one Envoy; its dataplane is registered where the request brings it."""
        document = await read_object(request)
        try:
            launch = read_launch_request(document)
            address = _address(request, is_tls=self._services.certificate_pem() is not None)
            token = launch.dataplane_token or bearer(request.headers.get("authorization", ""))
            # First of all: who does not belong here learns nothing of what there is.
            verified = self._verified(token, launch)
            authority = authority_for(self._services, host=address.host, given=launch.ca_cert)
            dataplane = self._brought(launch) if launch.dataplane_resource else await self._stored(launch)
            if self._services.proxies is not None and verified is not None:
                self._services.proxies.verify_for(verified, dataplane)
            # Also of one that is stored: the mesh may have come to want others since.
            admission = await admit(dataplane, self._services.store)
            if admission.violations:
                raise InvalidResourceError(admission.violations)
            parameters = replace(
                _parameters(launch, dataplane, address, authority, token=token), uses_hds=self._services.has_hds
            )
            text = generation.to_yaml(generation.bootstrap(parameters))
            if launch.dataplane_resource:
                # The last step: a request that is refused for whatever reason has registered nothing.
                await self._services.store.put(await self._until_it_listens(dataplane))
        except InvalidResourceError as error:
            return std_error(422, title=_TITLE, detail="The request is not valid", violations=error.violations)
        except MalformedResourceError as error:
            return std_error(422, title=_TITLE, detail=error.detail, violations=error.violations)
        except MeshNotFoundError as error:
            return std_error(422, title=_TITLE, detail=str(error), violations=[Violation("mesh", str(error))])
        except NotFoundError:
            # An empty body, so that launchers take it for "not yet" and ask again, as kuma-dp does.
            return Response(status_code=404)
        except TokenMismatchError as error:
            return std_error(403, title=_TITLE, detail=str(error))
        except TokenError as error:
            return std_error(401, title=_TITLE, detail=str(error), headers={"WWW-Authenticate": "Bearer"})
        except UnreachableError as error:
            return std_error(400, title=_TITLE, detail=str(error))
        return _response(request, text, dataplane)

    def _verified(self, token: str, launch: LaunchRequest) -> Verified[DataplaneClaims] | None:
        if self._services.proxies is None:
            return None
        return self._services.proxies.verify(token, mesh=launch.mesh, name=launch.name)

    async def _stored(self, launch: LaunchRequest) -> Dataplane:
        stored = await self._services.store.get(ResourceKey(Dataplane.type.name, launch.mesh, launch.name))
        assert isinstance(stored.resource, Dataplane)
        return stored.resource

    async def _until_it_listens(self, dataplane: Dataplane) -> Dataplane:
        """The dataplane, marked so that no client is sent to an Envoy that is still to start; one that runs is not."""
        try:
            stored = await self._services.store.get(dataplane.key._replace(type=DataplaneInsight.type.name))
        except NotFoundError:
            insight = None
        else:
            insight = stored.resource if isinstance(stored.resource, DataplaneInsight) else None
        if resources.status(insight) == ONLINE:
            return dataplane
        return dataplane.model_copy(update={"labels": FrozenMap({**dataplane.labels, AWAITS_PROXY_LABEL: "true"})})

    def _brought(self, launch: LaunchRequest) -> Dataplane:
        document = parse_object(launch.dataplane_resource, what="dataplaneResource")
        resource = parse(Dataplane.type, document)
        expected = {"type": Dataplane.type.name, "mesh": launch.mesh, "name": launch.name}
        violations = [
            Violation(field, f"{field} from the request has to be the same as in dataplaneResource")
            for field, value in expected.items()
            if document.get(field) != value
        ]
        violations += resources.validate(resource)
        if violations:
            raise InvalidResourceError(violations)
        complete = resources.with_defaults(resource, zone=self._services.zone)
        assert isinstance(complete, Dataplane)
        return complete


def _address(request: Request, *, is_tls: bool) -> _Address:
    header = request.headers.get("host", "")
    match = _HOST.fullmatch(header)
    port = int(match[3]) if match is not None and match[3] else (443 if is_tls else 80)
    if match is None or not 0 < port < 65536:
        raise UnreachableError(f"the header Host names no address: {header!r}")
    return _Address(host=match[1] or match[2], port=port)


def _parameters(
    launch: LaunchRequest, dataplane: Dataplane, address: _Address, authority: bytes | None, *, token: str
) -> generation.BootstrapParameters:
    return generation.BootstrapParameters(
        mesh=launch.mesh,
        name=launch.name,
        node_cluster=_service(dataplane),
        control_plane_host=address.host,
        control_plane_port=address.port,
        admin=_admin(launch, dataplane),
        ca_pem=authority,
        token=token or None,
        uses_delta=launch.uses_delta,
        dns_port=launch.dns_port or None,
        has_ipv6=launch.ipv6_enabled,
        workdir=launch.workdir,
        is_gateway=dataplane.gateway is not None and dataplane.gateway.type == "BUILTIN",
        features=launch.features,
        versions=launch.versions(),
        metadata=launch.metadata(),
    )


def _service(dataplane: Dataplane) -> str:
    tags = [inbound.tags for inbound in dataplane.inbounds]
    if dataplane.gateway is not None:
        tags.append(dataplane.gateway.tags)
    return next((service for candidate in tags if (service := candidate.get(SERVICE_TAG))), "unknown")


def _admin(launch: LaunchRequest, dataplane: Dataplane) -> AdminInterface:
    networking = dataplane.networking
    port = networking.admin.port if networking is not None and networking.admin is not None else 0
    socket_path = f"{launch.workdir.rstrip('/')}/{_ADMIN_SOCKET}" if launch.workdir else None
    if socket_path is not None and len(socket_path.encode()) > _SOCKET_PATH_BYTES_MAX:
        message = f"is too long for the admin socket {socket_path}, whose path may have {_SOCKET_PATH_BYTES_MAX} bytes"
        raise InvalidResourceError([Violation("workdir", message)])
    return AdminInterface(
        socket_path=socket_path,
        address=_LOOPBACK if port else None,
        port=port or None,
        readiness_port=launch.readiness_port or None,
    )


def _response(request: Request, text: str, dataplane: Dataplane) -> Response:
    if "application/json" not in request.headers.get("accept", ""):
        return Response(text, media_type="text/x-yaml")
    return json_response(
        {
            "bootstrap": base64.b64encode(text.encode()).decode(),
            "kumaSidecarConfiguration": {
                "networking": {"address": dataplane.address},
                "metrics": {"aggregate": []},
            },
        }
    )
