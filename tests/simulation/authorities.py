"""Meshes with TLS, their secrets, and the steps from one authority to another, as plain values for random histories.

In: numbers, resources. Out: meshes and secrets, whole and broken; what a mesh trusts next; who may sign, the naive way.
Never: a store, or what the code under test keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

from kumafast.identity.authority import Authority, AuthorityError, KeyPair, create_authority, load_authority
from kumafast.identity.backends import enabled_backend, lifetime_of
from kumafast.identity.trust import Trust, trust_name
from kumafast.resources import Mesh, Resource, ResourceKey, Secret, secret_data

Resources = Mapping[ResourceKey, Resource]

_BACKENDS = ("one", "two", "mine")
_MODES = ("STRICT", "PERMISSIVE")
_LIVES = ("24h", "20s")


@cache
def _pair(number: int) -> KeyPair:
    # Not the same in every process, but nothing depends on what is in it.
    return create_authority(f"authority {number}", now=datetime.now(UTC) - timedelta(days=1))


_TLS = tuple(product(_BACKENDS, _MODES, _LIVES))
# Several without TLS, and one that differs from another in a label alone.
MESH_FORMS = 4 + len(_TLS)


_LOGS = ({"type": "file", "conf": {"path": "/tmp/a"}}, {"type": "tcp", "format": "x", "conf": {"address": "h:1"}})
_TRACES = (
    {"type": "zipkin", "conf": {"url": "http://10.9.9.9:9411/api/v2/spans"}},
    {"type": "datadog", "sampling": 5, "conf": {"address": "h.example", "port": 8126}},
)


def _observed(default: str, logs: Sequence[Any], traces: Sequence[Any]) -> dict[str, object]:
    named = {"logging": zip(("one", "two"), logs, strict=True), "tracing": zip(("one", "two"), traces, strict=True)}
    return {
        field: {"defaultBackend": default, "backends": [{"name": name, **backend} for name, backend in backends]}
        for field, backends in named.items()
    }


# Where logs and traces of a mesh go: nowhere, or to backends of the same names that are something else; and whether all
# see services by tags or as resources.
_OBSERVED: tuple[dict[str, object], ...] = (
    {},
    {"meshServices": {"mode": "Exclusive"}},
    _observed("one", _LOGS, _TRACES),
    {**_observed("two", _LOGS[::-1], _TRACES), "meshServices": {"mode": "ReachableBackends"}},
    {**_observed("", _LOGS, _TRACES[::-1]), "networking": {"outbound": {"passthrough": False}}},
)


@cache
def mesh_of(name: str, form: int) -> Mesh:
    """One of `MESH_FORMS` meshes."""
    if form < 4:
        return Mesh.model_validate({"name": name, "labels": {"a": "b"} if form == 0 else {}, **_OBSERVED[form]})
    enabled, mode, life = _TLS[form - 4]
    rotation = {"rotation": {"expiration": life}}
    builtin = [{"name": each, "type": "builtin", "mode": mode, "dpCert": rotation} for each in ("one", "two")]
    mine = {"name": "mine", "type": "provided", "mode": mode, "dpCert": rotation}
    mine["conf"] = {"cert": {"secret": "mine-cert"}, "key": {"secret": "mine-key"}}
    mtls = {"enabledBackend": enabled, "backends": [*builtin, mine]}
    labels = {"a": "b"} if life == "20s" else {}
    return Mesh.model_validate({"name": name, "mtls": mtls, "labels": labels, **_OBSERVED[form % len(_OBSERVED)]})


def _names(mesh: str, backend: str) -> tuple[str, str]:
    if backend == "mine":
        return "mine-cert", "mine-key"
    return f"{mesh}.ca-builtin-cert-{backend}", f"{mesh}.ca-builtin-key-{backend}"


# First a whole authority for each backend, then others in their place, then pieces that do not fit, garbage and gaps.
_WHOLE = tuple((backend, number, number) for number in (0, 1) for backend in _BACKENDS)
_BROKEN = (*((backend, 2, 0) for backend in _BACKENDS), *((backend, None, 0) for backend in _BACKENDS))
WHOLE_FORMS = len(_WHOLE)
SECRET_FORMS = WHOLE_FORMS + len(_BROKEN) + 4


def secret_of(mesh: str, form: int) -> list[Secret | ResourceKey]:
    """What happens to secrets in one of `SECRET_FORMS` ways: those that are put, and the keys of those that go."""
    if form < WHOLE_FORMS + len(_BROKEN):
        backend, certificate, key = (*_WHOLE, *_BROKEN)[form]
        # Each backend has authorities of its own.
        offset = 10 * _BACKENDS.index(backend)
        names = _names(mesh, backend)
        second = _secret(mesh, names[1], _pair(key + offset).key)
        if certificate is None:
            return [ResourceKey("Secret", mesh, names[0]), second]
        return [_secret(mesh, names[0], _pair(certificate + offset).certificate), second]
    return [
        [_secret(mesh, "of-another-purpose", b"x")],
        [_secret(mesh, _names(mesh, "one")[0], b"not a certificate")],
        [ResourceKey("Secret", mesh, trust_name(mesh))],
        [_secret(mesh, trust_name(mesh), b"not what is trusted")],
    ][form - WHOLE_FORMS - len(_BROKEN)]  # type: ignore[return-value]


def _secret(mesh: str, name: str, content: bytes) -> Secret:
    return Secret(mesh=mesh, name=name, data=secret_data(content))


def is_asked(resources: Resources, mesh: str) -> bool:
    """Whether the mesh asks for TLS."""
    found = resources.get(ResourceKey("Mesh", "", mesh))
    return isinstance(found, Mesh) and found.mtls is not None


def can_sign(resources: Resources, mesh: str) -> bool:
    """Whether a mesh that asks for TLS has an authority: the one that it trusts to sign now, or its own."""
    trust = _trust(resources, mesh)
    if trust is not None:
        signer = _authority(resources, mesh, trust.backend.name)
        if signer is not None and signer.digest == trust.digest:
            return True
    return _wanted(resources, mesh) is not None


def next_trust(resources: Resources, mesh: str, *, now: datetime) -> Secret | None:
    """What the mesh trusts after the step that is due; None where none is."""
    wanted = _wanted(resources, mesh)
    if wanted is None:
        return None
    found = resources[ResourceKey("Mesh", "", mesh)]
    assert isinstance(found, Mesh)
    backend = enabled_backend(found)
    assert backend is not None
    trust = _trust(resources, mesh)
    if trust is None:
        after = Trust.of(backend, wanted)
    elif not trust.trusts(wanted.digest):
        after = trust.with_authority(wanted)
    elif (trust.digest, trust.backend) != (wanted.digest, backend):
        after = trust.signed_by(backend, wanted, now=now, lifetime=lifetime_of(trust.backend))
    else:
        after = trust.at(now)
    return None if after == trust else after.to_secret(mesh)


def _wanted(resources: Resources, mesh: str) -> Authority | None:
    found = resources.get(ResourceKey("Mesh", "", mesh))
    if not isinstance(found, Mesh) or found.mtls is None:
        return None
    return _authority(resources, mesh, found.mtls.enabled_backend)


def _authority(resources: Resources, mesh: str, backend: str) -> Authority | None:
    certificate, key = (resources.get(ResourceKey("Secret", mesh, name)) for name in _names(mesh, backend))
    if not isinstance(certificate, Secret) or not isinstance(key, Secret):
        return None
    return _loaded(certificate.content, key.content)


@cache
def _loaded(certificate: bytes, key: bytes) -> Authority | None:
    try:
        return load_authority(KeyPair(certificate, key))
    except AuthorityError:
        return None


def _trust(resources: Resources, mesh: str) -> Trust | None:
    found = resources.get(ResourceKey("Secret", mesh, trust_name(mesh)))
    if not isinstance(found, Secret):
        return None
    try:
        return Trust.from_content(found.content)
    except ValueError:
        return None
