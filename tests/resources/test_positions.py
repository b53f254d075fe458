"""Which kinds of references each position of a policy with a targetRef takes, and in which words it refuses the others.

Each kind has a row in `ROWS`. Of it a document is made for each position and each kind of reference there is, all else
being as it should be; and what must be refused must be refused with exactly the violations that the row gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from kumafast.resources import catalog, parse, unknown_fields, validate

Ref: TypeAlias = Mapping[str, Any]
Found: TypeAlias = list[tuple[str, str]]

REFS: dict[str, Ref] = {
    "Mesh": {"kind": "Mesh"},
    "MeshSubset": {"kind": "MeshSubset", "tags": {"version": "1"}},
    "Dataplane": {"kind": "Dataplane", "labels": {"app": "web"}},
    "MeshGateway": {"kind": "MeshGateway", "name": "edge"},
    "MeshService": {"kind": "MeshService", "name": "web"},
    "MeshServiceSubset": {"kind": "MeshServiceSubset", "name": "web", "tags": {"version": "1"}},
    "MeshExternalService": {"kind": "MeshExternalService", "name": "web"},
    "MeshMultiZoneService": {"kind": "MeshMultiZoneService", "name": "web"},
    "MeshHTTPRoute": {"kind": "MeshHTTPRoute", "name": "route"},
    "MeshGatewayRoute": {"kind": "MeshGatewayRoute", "name": "route"},
}
"""One reference of each kind, each as it should be; the last is of a kind that no position takes."""

TOPS: dict[str, Ref] = {
    **REFS,
    "sidecars": {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
    "gateways": {"kind": "Mesh", "proxyTypes": ["Gateway"]},
}
"""What a policy may be for."""

NOT_SUPPORTED = "value is not supported"
NOT_DEFINED = "must not be defined"
NEEDS_SIDECARS = (
    "must not be defined when the scope includes a Gateway, select only proxyType Sidecar or select only gateways and "
    "use spec.to"
)

_EXCLUDE = (
    "must not be defined when the scope includes a Gateway, exclude non-gateway resources or select only gateways and "
    "use spec.to"
)
_WITH_GATEWAYS = ("Mesh", "MeshSubset", "MeshGateway", "MeshHTTPRoute", "gateways")
"""What is, or may be, for gateways."""

_PROXIES = ("Mesh", "Dataplane", "MeshSubset", "MeshGateway", "MeshService", "MeshServiceSubset")
_SERVICES = ("MeshService", "MeshExternalService", "MeshMultiZoneService")


def _nothing_but(*kinds: str) -> Callable[[str, str], Found | None]:
    """Takes references of these kinds whatever the policy is for."""

    def refused(top: str, kind: str) -> Found | None:
        return None if kind in kinds else [(".targetRef.kind", NOT_SUPPORTED)]

    return refused


@dataclass(frozen=True)
class Row:
    """The positions of a kind. A position says of the kind of `targetRef` and that of an item how the item is refused.

    Paths begin at the item where they begin with a dot; else they are those of the document. None is no refusal.
    """

    conf: Mapping[str, Any] | list[Any]
    """One that is as it should be, of every position."""
    top: Collection[str]
    to: Callable[[str, str], Found | None] | None = None
    from_: Callable[[str, str], Found | None] | None = None
    rule: Callable[[str], Found | None] | None = None
    """By the kind of `targetRef` how a rule is refused."""
    part: str = "default"
    """What holds the conf in `to` and `from`."""
    whole: bool = False
    """True where there is a `default` in place of positions."""
    rule_conf: Mapping[str, Any] | None = None
    """That of rules, where it is another."""
    absent: Mapping[str, Found] = field(default_factory=dict)
    """For positions that are not there: how a document that has nothing else is refused."""
    with_rules: Found = field(
        default_factory=lambda: [("spec", "fields 'to' and 'from' must be empty when 'rules' is defined")]
    )
    """How `rules` beside `to` or `from` are refused."""
    top_refused: Mapping[str, Found] = field(default_factory=dict)
    """How what a policy is for is refused although its kind is right, by the keys of `TOPS`."""


def _or_everything(*kinds: str) -> Callable[[str, str], Found | None]:
    """Takes these kinds, and only all requests where the policy is for gateways or routes."""

    def refused(top: str, kind: str) -> Found | None:
        allowed = ("Mesh", "MeshExternalService") if top in ("MeshGateway", "MeshHTTPRoute") else kinds
        return None if kind in allowed else [(".targetRef.kind", NOT_SUPPORTED)]

    return refused


def _of_no_gateway(top: str, kind: str) -> Found | None:
    if top in ("MeshGateway", "MeshHTTPRoute"):
        return [("spec.from", NOT_DEFINED)]
    return _nothing_but("Mesh")(top, kind)


_OF_ALL_CLIENTS = (
    "kind MeshExternalService is only allowed with targetRef.kind: Mesh as it is configured on the Zone Egress and "
    "shared by all clients in the mesh"
)


def _of_a_strategy(top: str, kind: str) -> Found | None:
    kinds = ("Mesh", "MeshService", "MeshMultiZoneService")
    if top != "MeshGateway":
        outside = ("MeshExternalService",) if top in ("Mesh", "sidecars", "gateways") else ()
        kinds = (*kinds, "MeshHTTPRoute", *outside)
    found = _nothing_but(*kinds)(top, kind)
    return [*(found or ()), (".targetRef.kind", _OF_ALL_CLIENTS)] if kind == "MeshExternalService" and found else found


def _of_gateways(top: str, kind: str) -> Found | None:
    return _nothing_but("Mesh")(top, kind) if top in _WITH_GATEWAYS else [("spec.to", NOT_DEFINED)]


def _of_sidecars(message: str, *kinds: str) -> Callable[[str, str], Found | None]:
    """Takes these kinds, and nothing where the policy may be for gateways."""

    def refused(top: str, kind: str) -> Found | None:
        return [("spec.from", message)] if top in _WITH_GATEWAYS else _nothing_but(*kinds)(top, kind)

    return refused


def _rules_of_all_but(*tops: str) -> Callable[[str], Found | None]:
    return lambda top: [("spec.rules", NOT_DEFINED)] if top in tops else None


_SIDECARS_ONLY = [
    ("spec.targetRef.proxyTypes", "proxyTypes needs to be set, currently only Sidecar is supported"),
]

_BACKEND = {"kind": "MeshService", "name": "backend"}


def _of_a_route(top: str, kind: str) -> Found | None:
    return _nothing_but("Mesh")(top, kind) if top == "MeshGateway" else _nothing_but(*_SERVICES)(top, kind)


ROWS: dict[str, Row] = {
    "MeshAccessLog": Row(
        conf={"backends": []},
        top=_PROXIES,
        to=_nothing_but("Mesh", *_SERVICES, "MeshHTTPRoute"),
        from_=_nothing_but("Mesh"),
        rule=lambda top: None,
    ),
    "MeshCircuitBreaker": Row(
        conf={"connectionLimits": {"maxRequests": 1}},
        top=_PROXIES,
        to=_nothing_but("Mesh", *_SERVICES),
        from_=_nothing_but("Mesh"),
        rule=lambda top: None,
    ),
    "MeshFaultInjection": Row(
        conf={"http": [{"abort": {"httpStatus": 503, "percentage": "0.5"}}]},
        top=_PROXIES,
        to=_of_gateways,
        from_=_of_sidecars(_EXCLUDE, "Mesh", "MeshSubset", "MeshService", "MeshServiceSubset"),
        rule=_rules_of_all_but("MeshGateway", "gateways"),
    ),
    "MeshHealthCheck": Row(
        conf={"tcp": {}},
        top=_PROXIES,
        to=_nothing_but("Mesh", *_SERVICES),
        absent={"from": [], "rules": []},
    ),
    "MeshHTTPRoute": Row(
        conf=[{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "default": {"backendRefs": [_BACKEND]}}],
        part="rules",
        top=_PROXIES,
        to=_of_a_route,
        absent={"from": [], "rules": []},
    ),
    "MeshLoadBalancingStrategy": Row(
        conf={"hashPolicies": [{"type": "Header", "header": {"name": "x"}}]},
        top=_PROXIES,
        to=_of_a_strategy,
        absent={
            "from": [("spec.to", "needs at least one item")],
            "rules": [("spec.to", "needs at least one item")],
        },
    ),
    "MeshMetric": Row(conf={"backends": []}, top=_PROXIES, whole=True, absent={"to": [], "from": [], "rules": []}),
    "MeshPassthrough": Row(
        conf={"passthroughMode": "None"},
        top=("Mesh", "Dataplane", "MeshSubset"),
        whole=True,
        absent={"to": _SIDECARS_ONLY, "from": _SIDECARS_ONLY, "rules": _SIDECARS_ONLY},
        top_refused={"Mesh": _SIDECARS_ONLY, "gateways": _SIDECARS_ONLY},
    ),
    "MeshProxyPatch": Row(
        conf={"appendModifications": [{"cluster": {"operation": "Remove", "match": {"name": "a"}}}]},
        top=_PROXIES,
        whole=True,
    ),
    "MeshRateLimit": Row(
        conf={"local": {"http": {"requestRate": {"num": 1, "interval": "1s"}}}},
        top=(*_PROXIES, "MeshHTTPRoute"),
        to=_of_gateways,
        from_=_of_sidecars(NEEDS_SIDECARS, "Mesh"),
        rule=_rules_of_all_but(*_WITH_GATEWAYS),
    ),
    "MeshRetry": Row(
        conf={"http": {"numRetries": 1}},
        top=(*_PROXIES, "MeshHTTPRoute"),
        to=_or_everything("Mesh", *_SERVICES, "MeshHTTPRoute"),
        absent={
            "from": [("spec.to", "needs at least one item")],
            "rules": [("spec.to", "needs at least one item")],
        },
    ),
    "MeshTCPRoute": Row(
        conf=[{"default": {"backendRefs": [_BACKEND]}}],
        part="rules",
        top=_PROXIES,
        to=_of_a_route,
        absent={"from": [], "rules": []},
    ),
    "MeshTLS": Row(
        conf={"mode": "Strict"},
        top=("Mesh", "Dataplane", "MeshSubset"),
        from_=_nothing_but("Mesh"),
        rule=lambda top: None,
        absent={"to": []},
        with_rules=[("spec", "field 'from' must be empty when 'rules' is defined")],
    ),
    "MeshTimeout": Row(
        conf={"http": {"requestTimeout": "1s"}},
        top=(*_PROXIES, "MeshHTTPRoute"),
        to=_or_everything("Mesh", *_SERVICES, "MeshHTTPRoute"),
        from_=_of_no_gateway,
        rule=lambda top: None,
    ),
    "MeshTrace": Row(
        conf={"backends": []},
        top=_PROXIES,
        whole=True,
        absent={name: [("spec.default.backends", "must be defined")] for name in ("to", "from", "rules")},
    ),
    "MeshTrafficPermission": Row(
        conf={"action": "Allow"},
        top=("Mesh", "Dataplane", "MeshSubset", "MeshService", "MeshServiceSubset"),
        from_=_nothing_but("Mesh", "MeshSubset", "MeshService", "MeshServiceSubset"),
        rule=lambda top: None,
        rule_conf={"allow": [{"spiffeID": {"type": "Exact", "value": "spiffe://a/b"}}]},
        absent={"to": [("spec.to", NOT_DEFINED), ("spec", "at least one of 'from' or 'rules' has to be defined")]},
        with_rules=[("spec", "field 'from' must be empty when 'rules' is defined")],
    ),
}


def document(kind: str, top: Ref, **spec: Any) -> dict[str, Any]:
    return {"type": kind, "mesh": "default", "name": "p", "spec": {"targetRef": top, **spec}}


def item(row: Row, kind: str) -> dict[str, Any]:
    return {"targetRef": REFS[kind], row.part: row.conf}


def rule(row: Row) -> dict[str, Any]:
    return {"default": row.conf if row.rule_conf is None else row.rule_conf}


def violations(written: Mapping[str, Any]) -> Found:
    return [(violation.field, violation.message) for violation in validate(parse(written))]


def placed(found: Found | None, path: str) -> Found:
    return [(f"{path}{where}" if where.startswith(".") else where, message) for where, message in found or ()]


def test_every_kind_with_a_target_ref_has_a_row() -> None:
    kinds = {each.name for each in catalog.POLICY_TYPES if each.policy is not None and each.policy.is_target_ref}
    assert kinds == ROWS.keys()


def _bodies(row: Row, top: str) -> Iterator[tuple[str, dict[str, Any], Found]]:
    """What a policy for `top` may hold at each position, and how that is refused."""
    if row.whole:
        yield "default", {"default": row.conf}, []
    for name, refusal in (("to", row.to), ("from", row.from_)):
        for kind in REFS if refusal is not None else ():
            assert refusal is not None
            yield f"{name}-{kind}", {name: [item(row, kind)]}, placed(refusal(top, kind), f"spec.{name}[0]")
    if row.rule is not None:
        yield "rules", {"rules": [rule(row)]}, placed(row.rule(top), "spec.rules[0]")


CASES = [
    pytest.param(kind, top, body, found, id=f"{kind}-{top}-{position}")
    for kind, row in ROWS.items()
    for top in TOPS
    for position, body, found in _bodies(row, top)
]


@pytest.mark.parametrize(("kind", "top", "body", "found"), CASES)
def test_a_position_takes_its_kinds_and_no_other(kind: str, top: str, body: dict[str, Any], found: Found) -> None:
    refused = [] if TOPS[top]["kind"] in ROWS[kind].top else [("spec.targetRef.kind", NOT_SUPPORTED)]
    expected = [*refused, *ROWS[kind].top_refused.get(top, ()), *found]
    # Where two positions are refused the order is the kind's own.
    assert sorted(violations(document(kind, TOPS[top], **body))) == sorted(expected)


@pytest.mark.parametrize("kind", ROWS)
def test_each_position_accepts_something(kind: str) -> None:
    bodies = (each for top in TOPS for each in _bodies(ROWS[kind], top))
    accepted = {position.partition("-")[0] for position, _, found in bodies if not found}
    row = ROWS[kind]
    positions = {"default": row.whole, "to": row.to, "from": row.from_, "rules": row.rule}
    assert accepted == {name for name, there in positions.items() if there}


ABSENT = [(kind, position) for kind, row in ROWS.items() for position in row.absent]


@pytest.mark.parametrize(("kind", "position"), ABSENT)
def test_a_position_that_is_not_there_is_nothing(kind: str, position: str) -> None:
    row = ROWS[kind]
    written = document(kind, REFS["Mesh"], **{position: [rule(row) if position == "rules" else item(row, "Mesh")]})
    assert violations(written) == row.absent[position]


@pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if row.rule is not None])
def test_rules_stand_alone(kind: str) -> None:
    row = ROWS[kind]
    other = "to" if row.to is not None else "from"
    written = document(kind, REFS["Dataplane"], **{other: [item(row, "Mesh")], "rules": [rule(row)]})
    assert set(row.with_rules) <= set(violations(written))


SECTION = {"kind": "Dataplane", "name": "web-1", "sectionName": "http"}


@pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if "Dataplane" in row.top])
def test_a_section_is_of_what_comes_in(kind: str) -> None:
    row = ROWS[kind]
    refused = ("spec.targetRef.sectionName", "can only be used with inbound policies")
    if row.rule is not None:
        assert violations(document(kind, SECTION, rules=[rule(row)])) == []
    if row.to is not None:
        assert refused in violations(document(kind, SECTION, to=[item(row, "Mesh")]))
    if row.whole:
        assert violations(document(kind, SECTION, default=row.conf)) == [refused]


@pytest.mark.parametrize("kind", ROWS)
def test_without_a_target_ref_a_policy_is_for_the_mesh(kind: str) -> None:
    row = ROWS[kind]
    _, body, found = next(_bodies(row, "Mesh"))
    written = document(kind, REFS["Mesh"], **body)
    del written["spec"]["targetRef"]
    assert violations(written) == found
    assert list(unknown_fields(written)) == []


# What a reference may have beside its kind.

FIELDS: dict[str, Any] = {
    "name": "other",
    "namespace": "shop",
    "mesh": "other",
    "tags": {"version": "2"},
    "labels": {"team": "x"},
    "sectionName": "http",
    "proxyTypes": ["Sidecar"],
}
_NAMED = {"mesh", "tags", "proxyTypes"}
REFUSED_FIELDS: dict[str, set[str]] = {
    "Mesh": {"mesh", "tags", "labels", "namespace", "sectionName"},
    "Dataplane": {"tags", "mesh", "proxyTypes"},
    "MeshSubset": {"name", "mesh", "labels", "namespace", "sectionName"},
    "MeshGateway": {"mesh", "proxyTypes", "labels", "namespace", "sectionName"},
    "MeshServiceSubset": {"mesh", "proxyTypes", "labels", "namespace", "sectionName"},
    "MeshService": _NAMED,
    "MeshExternalService": {*_NAMED, "sectionName"},
    "MeshMultiZoneService": _NAMED,
    "MeshHTTPRoute": _NAMED,
}
"""By kind of reference the fields that it must not have."""


def _field_refused(kind: str, name: str, *, is_inbound: bool) -> Found:
    """How a field is refused that is added to one of `REFS`; at the reference."""
    if name in REFUSED_FIELDS[kind]:
        return [(f".{name}", f"must not be set with kind {kind}")]
    if (kind, name) == ("Mesh", "name"):
        return [(".name", "using name with kind Mesh is not yet supported")]
    if kind == "Dataplane" and name in ("name", "namespace"):
        return [(".labels", "either labels or name and namespace must be specified")]
    if (kind, name) == ("Dataplane", "sectionName") and not is_inbound:
        return [(".sectionName", "can only be used with inbound policies")]
    if name == "labels" and kind not in ("Dataplane", "Mesh"):
        names = "name" if kind == "MeshExternalService" else "name and namespace"
        return [(".labels", f"either labels or {names} must be specified")]
    return []


def _field_cases() -> Iterator[Any]:
    """A position of each kind with each reference that it takes, and each field beside."""
    for kind, row in ROWS.items():
        for top in REFS:
            body = next((each for each in _bodies(row, top) if not each[2]), None)
            if top in row.top and body is not None:
                for name in FIELDS:
                    yield pytest.param(kind, top, body[1], "spec.targetRef", top, name, id=f"{kind}-{top}-{name}")
        for where, refusal in (("to", row.to), ("from", row.from_)):
            for ref in REFS if refusal is not None else ():
                takes = [top for top in ("Dataplane", *row.top) if refusal is not None and refusal(top, ref) is None]
                for top, name in ((top, name) for top in takes[:1] for name in FIELDS):
                    written = {where: [item(row, ref)]}
                    path = f"spec.{where}[0].targetRef"
                    yield pytest.param(kind, top, written, path, ref, name, id=f"{kind}-{where}-{ref}-{name}")


@pytest.mark.parametrize(("kind", "top", "body", "path", "ref", "name"), list(_field_cases()))
def test_a_reference_has_what_its_kind_may_have_and_nothing_else(
    kind: str, top: str, body: dict[str, Any], path: str, ref: str, name: str
) -> None:
    written = copy.deepcopy(document(kind, dict(REFS[top]), **body))
    place = written["spec"]
    for step in path.removeprefix("spec.").replace("[0]", ".0").split("."):
        place = place[int(step) if step.isdigit() else step]
    place[name] = FIELDS[name]
    found = [
        each for each in violations(written) if each[0].startswith(f"{path}.{name}") or each[0] == f"{path}.labels"
    ]
    is_inbound = path == "spec.targetRef" and not {"to", "default"} & body.keys()
    expected = placed(_field_refused(ref, name, is_inbound=is_inbound), path)
    assert found == expected
