"""Secrets: keys, certificates and tokens that others must not see, of one mesh or of none.

In: documents in Kuma's 2.14 form, with `data` in base64. Out: `Secret` and `GlobalSecret`, frozen.
Never: what a secret is for; its data in a message, a log line or a `repr`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from kumafast.errors import Violation
from kumafast.resources.fields import Text
from kumafast.resources.resource import Resource, ResourceType, Scope


def _canonical(text: str) -> str:
    # As JSON of protobuf has it: either alphabet, with or without padding. The reason never repeats the text.
    padded = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None
    return base64.b64encode(data).decode()


_Base64 = Annotated[
    Text, AfterValidator(_canonical), Field(repr=False, json_schema_extra={"contentEncoding": "base64"})
]


class _Sealed(Resource):
    """What both kinds have in common."""

    data: _Base64 = ""

    @property
    def content(self) -> bytes:
        """The secret itself."""
        return base64.b64decode(self.data)

    def violations(self) -> Iterator[Violation]:
        """A secret without data is none."""
        if not self.data:
            yield Violation("data", "cannot be empty")


def _kind(name: str, scope: Scope, **names: Any) -> ResourceType:
    return ResourceType(name=name, scope=scope, is_in_federation=True, is_secret=True, **names)


class Secret(_Sealed):
    """A secret of one mesh.

    >>> Secret(mesh="default", name="ca-key", data="c2VjcmV0")
    Secret(name='ca-key', mesh='default', labels={})
    """

    type: ClassVar[ResourceType] = _kind("Secret", Scope.MESH, path="secrets", singular="Secret", plural="Secrets")


class GlobalSecret(_Sealed):
    """A secret of all meshes.

    >>> GlobalSecret(name="user-token-signing-key-1", data="c2VjcmV0").content
    b'secret'
    """

    type: ClassVar[ResourceType] = _kind(
        "GlobalSecret",
        Scope.GLOBAL,
        path="globalsecrets",
        other_path="global-secrets",
        singular="Global Secret",
        plural="Global Secrets",
    )


def secret_data(content: bytes) -> str:
    """Bytes as the `data` of a secret."""
    return base64.b64encode(content).decode()
