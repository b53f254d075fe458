"""MeshTLS: whether workloads take plaintext, and which versions and ciphers of TLS the mesh speaks.

In: documents in Kuma's 2.14 form. Out: `MeshTLS`, frozen, and the rules that it breaks. Never: a certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.fields import Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import DATAPLANE, MESH, MESH_SUBSET, check_target_ref
from kumafast.resources.target_ref_policy import TargetRefPolicy, UnmatchedSpec

STRICT = "Strict"
PERMISSIVE = "Permissive"

_MODES = (STRICT, PERMISSIVE)
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
_NUMBERED = ("TLS10", "TLS11", "TLS12", "TLS13")
_VERSIONS = ("TLSAuto", *_NUMBERED)


class Versions(Frozen):
    """The oldest and the newest version; `TLSAuto` leaves it to Envoy, as does nothing."""

    min: Text = ""
    max: Text = ""


class Conf(Frozen):
    """How the mesh is secured."""

    mode: Text = ""
    tls_version: Versions | None = None
    tls_ciphers: tuple[Text, ...] = ()


class MeshTLS(TargetRefPolicy):
    """How proxies secure what they take, and for a whole mesh what they send too."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshTLS",
        scope=Scope.MESH,
        path="meshtlses",
        singular="Mesh TLS",
        plural="Mesh TLSes",
        short_name="mtls",
        is_in_federation=True,
        policy=PolicyTraits(
            order=300,
            is_target_ref=True,
            has_from=True,
            has_rules=True,
            is_from_as_rules=True,
            both_ways=("tlsVersion", "tlsCiphers"),
        ),
    )

    spec: UnmatchedSpec[Conf] = UnmatchedSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh TLS policies that this one breaks, in the order of Kuma's checks."""
        spec = self.spec
        yield from check_target_ref(
            "spec.targetRef", spec.top, kinds=(MESH, MESH_SUBSET, DATAPLANE), is_inbound=spec.is_inbound
        )
        if spec.rules and spec.from_:
            yield Violation("spec", "field 'from' must be empty when 'rules' is defined")
        is_for_mesh = spec.top.kind == MESH
        for i, rule in enumerate(spec.rules):
            yield from _check_conf(f"spec.rules[{i}].default", rule.default or Conf(), is_for_mesh=is_for_mesh)
        for i, source in enumerate(spec.from_):
            yield from check_target_ref(f"spec.from[{i}].targetRef", source.target_ref, kinds=(MESH,))
            yield from _check_conf(f"spec.from[{i}].default", source.default or Conf(), is_for_mesh=is_for_mesh)


def _check_conf(path: str, conf: Conf, *, is_for_mesh: bool) -> Iterator[Violation]:
    if conf.mode and conf.mode not in _MODES:
        yield _not_one_of(path, "mode", _MODES)
    # A client cannot know what the proxy of each service would take, so this is the same in the whole mesh.
    if conf.tls_ciphers and not is_for_mesh:
        yield _only_for_mesh(path, "tlsCiphers")
    elif not set(conf.tls_ciphers) <= set(_CIPHERS):
        yield _not_one_of(path, "tlsCiphers", _CIPHERS)
    if conf.tls_version is not None:
        if is_for_mesh:
            yield from _check_versions(f"{path}.tlsVersion", conf.tls_version)
        else:
            yield _only_for_mesh(path, "tlsVersion")


def _check_versions(path: str, versions: Versions) -> Iterator[Violation]:
    for name, version in (("min", versions.min), ("max", versions.max)):
        if version and version not in _VERSIONS:
            yield _not_one_of(path, name, _VERSIONS)
    if {versions.min, versions.max} <= set(_NUMBERED) and versions.min > versions.max:
        yield Violation(f"{path}.min", "min version must be lower than max")


def _not_one_of(path: str, name: str, allowed: tuple[str, ...]) -> Violation:
    listed = ", ".join(f'"{each}"' for each in allowed)
    return Violation(f"{path}.{name}", f'"{name}" must be one of [{listed}]')


def _only_for_mesh(path: str, name: str) -> Violation:
    return Violation(f"{path}.{name}", f"{name} can only be defined with top level targetRef kind: Mesh")
