"""Modules of policies are found by themselves; what holds anyway is no effect."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.generation.scenarios import policy_effects

from kumafast.generation import policies
from kumafast.generation import policy_effects as module
from kumafast.generation.policies.mesh_timeout import ClusterTimeouts, OutboundTimeouts
from kumafast.matching import Setting
from kumafast.matching.merge import merge
from kumafast.resources.policies.mesh_timeout import MeshTimeout
from kumafast.resources.target_ref_policy import TargetRefPolicy

PROTOCOLS = ["http", "http2", "grpc", "tcp", "kafka", "unknown"]


def initial(name: str) -> TargetRefPolicy:
    (policy,) = (policy for policy in MeshTimeout.initial("default") if policy.name == name)
    assert isinstance(policy, TargetRefPolicy)
    return policy


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_new_mesh_says_is_what_holds_anyway(protocol: str) -> None:
    spec = initial("mesh-timeout-all-default").spec
    assert spec.to[0].default is not None
    assert spec.from_[0].default is not None
    to = spec.to[0].default.model_dump(by_alias=True, exclude_none=True)
    from_ = spec.from_[0].default.model_dump(by_alias=True, exclude_none=True)
    assert policy_effects({"MeshTimeout": to}, "outbound", protocol) == ()
    assert policy_effects({"MeshTimeout": to}, "destination", protocol) == ()
    assert policy_effects({"MeshTimeout": from_}, "inbound", protocol) == ()


@pytest.mark.parametrize("kind", ["Timeout", "MeshTimeout"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_conf_that_says_nothing_changes_nothing(kind: str, protocol: str) -> None:
    for part in ("outbound", "destination", "inbound"):
        assert policy_effects({kind: {}}, part, protocol) == ()


def test_a_part_holds_only_what_shows_in_it() -> None:
    conf: Mapping[str, Any] = {"connectionTimeout": "1s", "idleTimeout": "2s", "http": {"requestTimeout": "3s"}}
    of = {
        (part, p): policy_effects({"MeshTimeout": conf}, part, p)
        for part in ("outbound", "destination")
        for p in ("http", "tcp")
    }
    (http,), (tcp,) = of["outbound", "http"], of["outbound", "tcp"]
    assert isinstance(http, OutboundTimeouts)
    assert (http.request.seconds, http.idle) == (3, OutboundTimeouts().idle)
    assert isinstance(tcp, OutboundTimeouts)
    assert (tcp.idle.seconds, tcp.request) == (2, OutboundTimeouts().request)
    (cluster,) = of["destination", "tcp"]
    assert isinstance(cluster, ClusterTimeouts)
    assert (cluster.connect.seconds, cluster.idle) == (1, ClusterTimeouts().idle)


def test_a_kind_that_has_nothing_to_say_to_a_part_is_passed_over() -> None:
    assert policy_effects({"Timeout": {"http": {"requestTimeout": "1s"}}}, "inbound", "http") == ()
    assert policy_effects({"MeshNothing": {}}, "outbound", "http") == ()


def test_a_policy_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mesh_probe.py").write_text(
        "from dataclasses import dataclass\n"
        "from kumafast.generation.effects import Effect\n"
        "KIND = 'MeshProbe'\n"
        "@dataclass(frozen=True)\n"
        "class Probe(Effect):\n"
        "    path: str\n"
        "def outbound(conf, protocol):\n"
        "    return Probe(conf['path'])\n"
    )
    monkeypatch.setattr(policies, "__path__", [str(tmp_path)])
    # A fresh copy, so that the one that everybody uses does not learn of it.
    spec = importlib.util.spec_from_file_location("policy_effects_copy", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(copy)
    finally:
        sys.modules.pop(f"{policies.__name__}.mesh_probe", None)
    settings = (Setting("MeshProbe", merge([{"path": "/ready"}])),)
    assert [effect.path for effect in copy.effects(settings, "outbound", "http")] == ["/ready"]
    assert module.effects(settings, "outbound", "http") == ()
