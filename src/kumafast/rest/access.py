"""The door of the API: who a request comes from, and whether it may go on.

In: requests. Out: the same requests with their user, or 401 and 403. Never: an answer of the application to somebody
who may not have it; trust in what a client says of where it is.

Without a token, whoever is on this machine is its administrator, as with kubectl or Kuma itself. A request counts as
from here only if everything about it does: its peer is a loopback address, it was not passed on by a proxy, and it asks
for this machine by a loopback name, which a page of another site, or a name that was made to point here, does not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kumafast.identity.access import (
    ADMIN,
    ANONYMOUS,
    AUTHENTICATED_GROUP,
    AnonymousAccess,
    Right,
    User,
    is_allowed,
)
from kumafast.identity.tokens import TokenError, UserClaims
from kumafast.resources import catalog
from kumafast.resources.resource import Scope as ResourceScope
from kumafast.rest.errors import std_error

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN_PATHS: Final = frozenset({"/", "/who-am-i"})
# What shows the configuration of a proxy, and with it what its secrets are for.
_DUMPS: Final = frozenset({"_config", "xds", "stats", "clusters"})
_PASSED_ON: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)

_NO_TOKEN: Final = (
    "a token is needed for this: `kumafast generate user-token` makes one, --token or KUMAFAST_TOKEN sends it"
)

VerifyUser = Callable[[str], UserClaims]
"""The claims of a good token of a user; raises `TokenError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Who may do what here. With `is_certified` only those get here whose certificate was verified: administrators."""

    verify: VerifyUser
    is_localhost_admin: bool = True
    anonymous: AnonymousAccess = AnonymousAccess.READ
    is_certified: bool = False


class Guard:
    """An application behind the door."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with its user as `state.user`, or answer it here."""
        try:
            user = self._user(scope)
        except TokenError as error:
            headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            await _refusal(401, "Could not authenticate", str(error), headers)(scope, receive, send)
            return
        right, mesh = needed(scope["method"], scope["path"])
        if is_allowed(user, right, mesh=mesh, anonymous=self._rules.anonymous):
            scope.setdefault("state", {})["user"] = user
            await self._app(scope, receive, send)
        elif user is ANONYMOUS:
            await _refusal(401, "Could not authenticate", _NO_TOKEN, {"WWW-Authenticate": "Bearer"})(
                scope, receive, send
            )
        else:
            detail = f"the user {user.name} may not {right.value}{f' in the mesh {mesh}' if mesh else ''} here"
            await _refusal(403, "Access Denied", detail)(scope, receive, send)

    def _user(self, scope: Scope) -> User:
        headers = Headers(scope=scope)
        given = headers.getlist("authorization")
        if given:
            scheme, _, token = given[0].partition(" ")
            if len(given) > 1 or scheme.lower() != "bearer" or not token:
                raise TokenError("the header Authorization has to be `Bearer` and a token")
            claims = self._rules.verify(token.strip())
            return User(claims.name, (*claims.groups, AUTHENTICATED_GROUP))
        if self._rules.is_certified or (self._rules.is_localhost_admin and is_local(scope.get("client"), headers)):
            return ADMIN
        return ANONYMOUS


def needed(method: str, path: str) -> tuple[Right, str]:
    """What a request needs, and the mesh that it is about. What is not known here needs the most."""
    parts = path.strip("/").split("/")
    mesh = parts[1] if parts[0] == "meshes" and len(parts) > 2 else ""
    collection = parts[2] if mesh else parts[0]
    kind = catalog.by_path(collection)
    if mesh and collection == "_diff" and len(parts) == 3:
        return Right.WRITE, mesh
    if parts[0] == "tokens" or (kind is not None and kind.is_secret):
        return Right.ADMIN, ""
    if collection == "dataplanes" and parts[-1] in _DUMPS and len(parts) > 3:
        return Right.ADMIN, ""
    if method in _READING:
        return (Right.NOTHING if path in _OPEN_PATHS else Right.READ), ""
    if mesh and kind is not None and kind.scope is ResourceScope.MESH:
        return Right.WRITE, mesh
    # A mesh itself, and what belongs to none.
    return (Right.WRITE if kind is not None else Right.ADMIN), ""


def is_local(client: tuple[str, int] | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, as far as everything about it says so."""
    if client is None or not _is_loopback(client[0]) or any(name in headers for name in _PASSED_ON):
        return False
    host = headers.get("host", "")
    if not _is_loopback(_hostname(f"//{host}")):
        return False
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == host


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return std_error(status, title=title, detail=detail, headers=headers)
