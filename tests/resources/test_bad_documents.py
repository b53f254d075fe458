"""Every bad document is refused with exactly the violations that clients show, and nothing else."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest
from tests.resources.bad_documents import BAD_DOCUMENTS

from kumafast.errors import MalformedResourceError, Violation
from kumafast.resources import catalog, parse, validate

OF_A_KIND_MIN = 8
POLICIES_MIN = 200

_MALFORMED = [(case, document, violations) for case, document, kind, violations in BAD_DOCUMENTS if kind == "malformed"]
_INVALID = [(case, document, violations) for case, document, kind, violations in BAD_DOCUMENTS if kind == "invalid"]


def _ids(cases: list[tuple[str, object, list[Violation] | None]]) -> list[str]:
    return [case for case, _, _ in cases]


def test_cases_are_named_once() -> None:
    names = [case for case, _, _, _ in BAD_DOCUMENTS]
    assert len(names) == len(set(names))
    assert len(names) >= 60


def test_every_kind_that_users_write_has_some_and_policies_many() -> None:
    written = Counter(str(document.get("type")) for _, document, _, _ in BAD_DOCUMENTS if isinstance(document, dict))
    kinds = {kind.name for kind in catalog.RESOURCE_TYPES if not kind.is_read_only and not kind.is_secret}
    old = {kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and not kind.policy.is_target_ref}
    covered = {*old, "Dataplane", "ExternalService", "Mesh", "MeshGateway", "MeshGatewayRoute", "MeshTimeout"}
    covered |= {"MeshTrafficPermission", "VirtualOutbound"}
    assert covered <= kinds
    assert {kind: written[kind] for kind in covered if written[kind] < OF_A_KIND_MIN} == {}
    policies = {kind.name for kind in catalog.POLICY_TYPES}
    assert sum(count for kind, count in written.items() if kind in policies) >= POLICIES_MIN


@pytest.mark.parametrize(("case", "document", "violations"), _MALFORMED, ids=_ids(_MALFORMED))
def test_malformed(case: str, document: Any, violations: list[Violation]) -> None:
    with pytest.raises(MalformedResourceError) as caught:
        parse(document)
    assert list(caught.value.violations) == violations
    assert caught.value.detail


@pytest.mark.parametrize(("case", "document", "violations"), _INVALID, ids=_ids(_INVALID))
def test_invalid(case: str, document: object, violations: list[Violation]) -> None:
    assert list(validate(parse(cast(Mapping[str, object], document)))) == violations


@pytest.mark.parametrize("document", [document for _, document, _ in _INVALID], ids=_ids(_INVALID))
def test_parsing_leaves_its_argument_alone(document: Mapping[str, object]) -> None:
    before = copy.deepcopy(document)
    parse(document)
    assert document == before
