"""Who may have streams where tokens are required, in the words of the streams.

In: what a stream's headers and first request say. Out: it is let in, or ended with a status of gRPC.
Never: how tokens are verified; `identity` knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kumafast.identity.access import AnonymousAccess, Right, User, is_allowed
from kumafast.identity.proxies import NO_TOKEN, ProxyAccess
from kumafast.identity.token_keys import TokenKeys
from kumafast.identity.tokens import TokenError, bearer
from kumafast.snapshot.node import Node, dataplane_of
from kumafast.stream.admission import End, PermissionDeniedError, UnauthenticatedError

_LOG = logging.getLogger(__name__)


class Door:
    """Who may have streams where tokens are required: in the words of the streams."""

    def __init__(self, proxies: ProxyAccess, keys: TokenKeys) -> None:
        self._proxies = proxies
        self._keys = keys

    def authenticate(self, authorization: str, node: Node, end: End) -> Callable[[], None]:
        """Let in an Envoy that has a token for just the node that it says it is."""
        # The id is the key of the snapshot as well: what has been proved is what is given.
        named = dataplane_of(node.id)
        try:
            if not authorization:
                raise TokenError(NO_TOKEN)
            if named is None:
                raise TokenError(f"the node's id must be MESH.NAME, it is {node.id[:256]!r}")
            return self._proxies.admit(authorization, mesh=named[0], name=named[1], end=end)
        except TokenError as error:
            _LOG.info("the node %.256r is not let in: %s", node.id, error)
            raise UnauthenticatedError(str(error)) from error

    def authorize(self, authorization: str) -> None:
        """Let in an administrator."""
        token = bearer(authorization)
        if not token:
            raise UnauthenticatedError("the token of an administrator is needed: `kumafast generate user-token`")
        try:
            claims = self._keys.verify_user(token)
        except TokenError as error:
            raise UnauthenticatedError(str(error)) from error
        user = User(claims.name, claims.groups)
        if not is_allowed(user, Right.ADMIN, anonymous=AnonymousAccess.NONE):
            raise PermissionDeniedError(f"the user {user.name} is no administrator")
