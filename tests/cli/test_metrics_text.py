"""An Envoy's metrics as they are published: by profile and selector, clusters of one service added up."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.cli.metrics_text import Selection, published

TEXT = """\
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="echo"} 1
envoy_cluster_upstream_rq_total{envoy_cluster_name="echo-0123456789abcdef"} 2
envoy_cluster_upstream_rq_total{envoy_cluster_name="echo-00000000000000aa"} 4
envoy_cluster_upstream_rq_total{envoy_cluster_name="ads_cluster"} 8
envoy_cluster_upstream_rq_total{envoy_cluster_name="_kuma_metrics_hijacker"} 16
# TYPE envoy_cluster_assignment_stale counter
envoy_cluster_assignment_stale{envoy_cluster_name="echo"} 0
# TYPE envoy_http_downstream_rq_xx counter
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="echo"} 3
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="admin"} 5
# TYPE envoy_server_uptime gauge
envoy_server_uptime{} 12
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo",le="1"} 1
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo",le="+Inf"} 2
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="echo"} 2.5
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="echo"} 2
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo-0123456789abcdef",le="1"} 3
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="echo-0123456789abcdef",le="+Inf"} 3
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="echo-0123456789abcdef"} 0.25
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="echo-0123456789abcdef"} 3
"""


def now(**sidecar: Any) -> dict[str, str]:
    """What is published of the text: values by name and labels."""
    lines = published(TEXT, Selection.of(sidecar)).splitlines()
    return {key: value for key, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def names(**profiles: Any) -> set[str]:
    return {key.partition("{")[0] for key in now(profiles=profiles)}


def profile(*named: str) -> list[dict[str, str]]:
    return [{"name": each} for each in named]


def test_the_basic_profile_is_what_nobody_says() -> None:
    assert now() == now(profiles={"appendProfiles": profile("Basic")}) == now(profiles={"appendProfiles": []})
    assert now()['envoy_cluster_upstream_rq_total{envoy_cluster_name="echo",kuma_io_mesh_traffic="true"}'] == "7"
    assert not [key for key in now() if "ads_cluster" in key or "_kuma" in key or "assignment" in key]


def test_buckets_are_added_up_one_by_one() -> None:
    labels = 'envoy_cluster_name="echo"'
    mark = ',kuma_io_mesh_traffic="true"}'
    name = "envoy_cluster_upstream_rq_time"
    assert {key: value for key, value in now().items() if key.startswith(name)} == {
        f'{name}_bucket{{{labels},le="1"{mark}': "4",
        f'{name}_bucket{{{labels},le="+Inf"{mark}': "5",
        f"{name}_sum{{{labels}{mark}": "2.75",
        f"{name}_count{{{labels}{mark}": "5",
    }


def test_everything_is_the_proxys_own_too() -> None:
    found = now(profiles={"appendProfiles": profile("All")})
    assert found['envoy_cluster_upstream_rq_total{envoy_cluster_name="ads_cluster"}'] == "8"
    assert found['envoy_cluster_assignment_stale{envoy_cluster_name="echo",kuma_io_mesh_traffic="true"}'] == "0"
    http = 'envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix='
    assert found[f'{http}"echo",kuma_io_mesh_traffic="true"}}'] == "3"
    assert found[f'{http}"admin"}}'] == "5"


def test_the_widest_of_several_profiles_counts() -> None:
    assert names(appendProfiles=profile("None", "Basic", "All")) == names(appendProfiles=profile("All"))
    assert names(appendProfiles=profile("None", "Basic")) == names(appendProfiles=profile("Basic"))
    assert names(appendProfiles=profile("None")) == set()


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("Exact", "envoy_server_uptime"),
        ("Prefix", "envoy_server"),
        ("Contains", "uptime"),
        ("Regex", "^envoy_s.*e$"),
    ],
)
def test_selectors_leave_out_and_bring_back(kind: str, match: str) -> None:
    selector = {"type": kind, "match": match}
    basic = names(appendProfiles=profile("Basic"))
    assert names(exclude=[selector]) == basic - {"envoy_server_uptime"}
    assert names(appendProfiles=profile("None"), include=[selector]) == {"envoy_server_uptime"}
    # What is included is so in any case.
    assert names(exclude=[{"type": "Prefix", "match": ""}], include=[selector]) == {"envoy_server_uptime"}


def test_who_never_moved_is_asked_for_where_that_is_said() -> None:
    assert not Selection.of(None).includes_unused
    assert not Selection.of({"includeUnused": False}).includes_unused
    assert Selection.of({"includeUnused": True}).includes_unused
