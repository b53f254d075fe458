"""The catalogue names kinds as Kuma 2.14's `/_resources` does."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from kumafast.resources import Dataplane, DataplaneInsight, Mesh, Scope, catalog, policies


def test_types_of_this_release() -> None:
    answer = {
        t.name: (t.path, t.scope, t.singular, t.plural, t.short_name, t.is_read_only, t.is_in_federation)
        for t in catalog.RESOURCE_TYPES
        if t.name in ("Mesh", "Dataplane", "DataplaneInsight")
    }
    assert answer == {
        "Dataplane": ("dataplanes", Scope.MESH, "Dataplane", "Dataplanes", "dp", False, False),
        "DataplaneInsight": (
            "dataplane-insights",
            Scope.MESH,
            "Dataplane Insight",
            "Dataplane Insights",
            "",
            True,
            False,
        ),
        "Mesh": ("meshes", Scope.GLOBAL, "Mesh", "Meshes", "m", False, True),
    }


def test_ownership() -> None:
    assert Dataplane.type.keeps_mesh
    assert DataplaneInsight.type.owner == "Dataplane"
    assert not DataplaneInsight.type.keeps_mesh


def test_types_are_sorted_and_unambiguous() -> None:
    names = [t.name for t in catalog.RESOURCE_TYPES]
    assert names == sorted(set(names))
    assert len({t.path for t in catalog.RESOURCE_TYPES}) == len(names)


def test_every_type_is_found_by_each_of_its_names() -> None:
    for resource_type in catalog.RESOURCE_TYPES:
        assert catalog.by_name(resource_type.name) is resource_type
        assert catalog.by_path(resource_type.path) is resource_type
        assert catalog.model_of(resource_type.name).type is resource_type
        for word in (resource_type.path, resource_type.name, resource_type.singular, resource_type.plural):
            assert catalog.by_argument(word) is resource_type


@pytest.mark.parametrize(
    ("word", "model"),
    [
        ("dataplane", Dataplane),
        ("dataplanes", Dataplane),
        ("dp", Dataplane),
        ("Dataplane", Dataplane),
        ("mesh", Mesh),
        ("meshes", Mesh),
        ("dataplane-insight", DataplaneInsight),
        ("dataplane-insights", DataplaneInsight),
        ("dataplaneinsights", DataplaneInsight),
    ],
)
def test_arguments(word: str, model: type[Mesh | Dataplane | DataplaneInsight]) -> None:
    assert catalog.by_argument(word) is model.type


@pytest.mark.parametrize("word", ["", "-", "nothing", "data plane x"])
def test_no_such_type(word: str) -> None:
    assert catalog.by_argument(word) is None
    assert catalog.by_name(word) is None
    assert catalog.by_path(word) is None
    with pytest.raises(KeyError):
        catalog.model_of(word)


def test_every_model_has_a_json_schema() -> None:
    # Warnings are errors here: a default that cannot be written would be one.
    for resource_type in catalog.RESOURCE_TYPES:
        assert "name" in catalog.model_of(resource_type.name).model_json_schema(by_alias=True)["properties"]


def test_a_policy_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mesh_probe.py").write_text(
        "from kumafast.resources.resource import Resource, ResourceType, Scope\n"
        "class MeshProbe(Resource):\n"
        "    type = ResourceType('MeshProbe', Scope.MESH, 'meshprobes', 'Mesh Probe', 'Mesh Probes')\n"
    )
    monkeypatch.setattr(policies, "__path__", [str(tmp_path)])
    # A fresh copy of the catalogue, so that the one that everybody uses does not learn of it.
    spec = importlib.util.spec_from_file_location("catalog_copy", catalog.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(copy)
    finally:
        sys.modules.pop(f"{policies.__name__}.mesh_probe", None)
    assert copy.by_path("meshprobes").name == "MeshProbe"
    assert copy.by_argument("mesh-probe").name == "MeshProbe"
    assert catalog.by_name("MeshProbe") is None


def test_types_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Mesh.type.name = "Other"  # type: ignore[misc]
