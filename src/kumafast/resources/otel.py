"""Collectors of OpenTelemetry, as policies with a `targetRef` name them.

In: documents. Out: frozen values, the rules that they break, the host and port that are meant. Never: what is sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from kumafast.errors import Violation
from kumafast.resources.fields import FrozenMap, Tags, Text
from kumafast.resources.resource import Frozen

_KIND = "MeshOpenTelemetryBackend"
_PORT = 4317
_WAYS = "endpoint, backendRef"


class BackendRef(Frozen):
    """A resource that describes a collector, by its name or its labels."""

    kind: Text = ""
    name: Text = ""
    labels: Tags = FrozenMap()


class OtelBackend(Frozen):
    """A collector: `host:port`, or a resource that says it."""

    endpoint: Text = ""
    backend_ref: BackendRef | None = None


def check_otel_backend(path: str, backend: OtelBackend) -> Iterator[Violation]:
    """One of the two ways to name a collector, and that as it should be."""
    if backend.endpoint and backend.backend_ref is not None:
        yield Violation(path, f"openTelemetry must have only one type defined: {_WAYS}")
    elif backend.backend_ref is not None:
        yield from _check_reference(f"{path}.backendRef", backend.backend_ref)
    elif not backend.endpoint:
        yield Violation(path, f"openTelemetry must have exactly one defined: {_WAYS}")
    elif any(character in backend.endpoint for character in "/?#"):
        yield Violation(f"{path}.endpoint", "must be in host:port format, not a URL")
    elif address(backend.endpoint) is None:
        # Kuma takes the port for 0 then, and its Envoys refuse the cluster.
        yield Violation(f"{path}.endpoint", "must be in host:port format, with a port in the range [1, 65535]")


def _check_reference(path: str, reference: BackendRef) -> Iterator[Violation]:
    if reference.kind != _KIND:
        yield Violation(f"{path}.kind", f"kind must be one of: {_KIND}")
    if not reference.name and not reference.labels:
        yield Violation(path, "backendRef must have exactly one defined: name, labels")
    elif reference.name and reference.labels:
        yield Violation(path, "backendRef must have only one type defined: name, labels")


def address(endpoint: str) -> tuple[str, int] | None:
    """Host and port; 4317, that of OpenTelemetry, where there is none. None where it is no such endpoint.

    >>> address("otel:4318"), address("otel"), address("[::1]:5"), address("otel:many")
    (('otel', 4318), ('otel', 4317), ('::1', 5), None)
    """
    host, _, port = endpoint.rpartition(":") if not endpoint.endswith("]") else (endpoint, "", "")
    if not host:
        host, port = endpoint, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port or _PORT)
