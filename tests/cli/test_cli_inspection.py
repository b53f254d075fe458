"""inspect: kumactl's table, the status of one dataplane."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.builders import dataplane, inbound
from tests.cli.conftest import Api
from tests.gateways import gateway_dataplane, gateway_route, mesh_gateway
from typer.testing import Result

from kumafast.cli import inspection
from kumafast.cli.output import age, parse_time, table, tags_text
from kumafast.resources import DataplaneInsight

Command = Callable[..., Result]


def ago(**time: float) -> str:
    """A moment before now, with the nine decimals that Go writes."""
    moment = datetime.now(UTC) - timedelta(**time)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.123456789Z"


def insight(name: str, *subscriptions: dict[str, Any]) -> DataplaneInsight:
    return DataplaneInsight.model_validate({"name": name, "mesh": "default", "subscriptions": subscriptions})


def subscription(**over: Any) -> dict[str, Any]:
    return {
        "id": "s-1",
        "controlPlaneInstanceId": "cp-1",
        "connectTime": ago(hours=2.5),
        "status": {
            "lastUpdateTime": ago(minutes=3.5),
            "total": {"responsesSent": "3", "responsesAcknowledged": "2", "responsesRejected": "1"},
            "cds": {"responsesSent": "2", "responsesAcknowledged": "1", "responsesRejected": "1"},
            "lds": {"responsesSent": "1", "responsesAcknowledged": "1"},
            "lastError": {
                "typeUrl": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "version": "7",
                "message": "bad cluster",
            },
        },
        "version": {"kumaDp": {"version": "2.14.3"}, "envoy": {"version": "1.40.0"}},
        **over,
    }


@pytest.fixture
def mesh(api: Api) -> Api:
    old = subscription(connectTime=ago(days=2.5), disconnectTime=ago(days=1.5))
    api.run(api.store.put(dataplane("echo-1", tags={"kuma.io/service": "echo", "version": "v1"})))
    api.run(api.store.put(insight("echo-1", old, subscription())))
    api.run(api.store.put(dataplane("web-1", tags={"kuma.io/service": "web"})))
    api.run(api.store.put(dataplane("web-2", tags={"kuma.io/service": "web"})))
    api.run(api.store.put(insight("web-2", old)))
    return api


def test_the_table_is_kumactls(kumafast: Command, mesh: Api) -> None:
    columns = "   STATUS    LAST CONNECTED AGO   LAST UPDATED AGO   TOTAL UPDATES   TOTAL ERRORS"
    row = "   {:<10}{:<21}{:<19}{:<16}{}"
    assert kumafast("inspect", "dataplanes").stdout.splitlines() == [
        f"MESH      NAME     TAGS                           {columns}",
        "default   echo-1   kuma.io/service=echo version=v1" + row.format("Online", "2h", "3m", 6, 2),
        "default   web-1    kuma.io/service=web            " + row.format("Offline", "never", "never", 0, 0),
        "default   web-2    kuma.io/service=web            " + row.format("Offline", "2d", "3m", 3, 1),
    ]


def test_the_wide_table_has_versions(kumafast: Command, mesh: Api) -> None:
    lines = kumafast("inspect", "dataplanes", "--wide").stdout.splitlines()
    assert lines[0].endswith("TOTAL ERRORS   KUMA-DP VERSION   ENVOY VERSION")
    assert lines[1].split()[-2:] == ["2.14.3", "1.40.0"]
    assert lines[2].split()[-2:] == ["unknown", "unknown"]


def test_dataplanes_are_selected_by_tags(kumafast: Command, mesh: Api) -> None:
    for tag in ("kuma.io/service=echo", "kuma.io/service:echo"):
        found = json.loads(kumafast("inspect", "dataplanes", "--tag", tag, "--tag", "version=v1", "-o", "json").stdout)
        assert [item["name"] for item in found["items"]] == ["echo-1"]
    mesh.run(mesh.store.put(dataplane("edge-1", inbound=[], gateway={"tags": {"kuma.io/service": "edge"}})))
    gateways = json.loads(kumafast("inspect", "dataplanes", "--gateway", "-o", "json").stdout)
    assert [item["name"] for item in gateways["items"]] == ["edge-1"]
    bad = kumafast("inspect", "dataplanes", "--tag", "echo")
    assert (bad.exit_code, bad.stderr) == (1, "error: a tag has the form key=value, not 'echo'\n")


def test_the_status_of_one(kumafast: Command, mesh: Api) -> None:
    lines = kumafast("inspect", "dataplane", "echo-1").stdout.splitlines()
    assert lines[:19] == [
        "name:    echo-1",
        "mesh:    default",
        "tags:    kuma.io/service=echo version=v1",
        "status:  Online",
        "updates: 6",
        "errors:  2",
        "",
        "subscription s-1 at cp-1",
        "  connected 2h ago, open, Envoy 1.40.0",
        "  last update 3m ago",
        "  TYPE    SENT   ACKNOWLEDGED   REJECTED",
        "  cds     2      1              1",
        "  eds     0      0              0",
        "  lds     1      1              0",
        "  rds     0      0              0",
        "  total   3      2              1",
        "  last error: type.googleapis.com/envoy.config.cluster.v3.Cluster: bad cluster",
        "",
        "subscription s-1 at cp-1",
    ]
    assert lines[19] == "  connected 2d ago, ended 1d ago, Envoy 1.40.0"
    assert json.loads(kumafast("inspect", "dataplane", "echo-1", "-o", "json").stdout)["type"] == "DataplaneOverview"


def test_the_status_of_each_type(kumafast: Command, api: Api) -> None:
    url = "type.googleapis.com/envoy.config.{}"
    counts = {"responsesSent": "2", "responsesAcknowledged": "1"}
    versions = {"sentVersion": "b" * 32, "acknowledgedVersion": "a" * 32}
    refused = {"rejectedVersion": "b" * 32, "rejectedTime": ago(minutes=3.5), "error": "bad cluster"}
    types = [
        {"typeUrl": url.format("cluster.v3.Cluster"), **counts, **versions, **refused, "bytesSent": "2048"},
        {"typeUrl": url.format("listener.v3.Listener"), "responsesSent": "1", "sentVersion": "7", "bytesSent": "10"},
        {"typeUrl": "opaque", "responsesSent": "1", "sentVersion": "7", "acknowledgedVersion": "7"},
    ]
    refused_at_once = {"typeUrl": "x.Secret", "sentVersion": "8", "rejectedVersion": "8", "error": "no key"}
    refused_at_once["rejectedTime"] = ago(minutes=1.5)
    status = {"total": {"responsesSent": "4", "responsesRejected": "1"}, "types": [*types, refused_at_once]}
    api.run(api.store.put(dataplane("web-1")))
    api.run(api.store.put(insight("web-1", subscription(status=status))))
    lines = kumafast("inspect", "dataplane", "web-1", "--type", "status").stdout.splitlines()
    assert lines[10:] == [
        "  TYPE       SENT   ACKNOWLEDGED   REJECTED   BYTES   VERSION        STATE",
        "  Cluster    2      1              0          2048    bbbbbbbbbbbb   rejected, runs aaaaaaaaaaaa",
        "  Listener   1      0              0          10      7              sent, not yet answered",
        "  opaque     1      0              0          0       7              acknowledged",
        "  Secret     0      0              0          0       8              rejected, runs none",
        "  total      4      0              1          2058",
        "  Cluster bbbbbbbbbbbb was rejected 3m ago: bad cluster",
        "  Secret 8 was rejected 1m ago: no key",
    ]
    shown = json.loads(kumafast("inspect", "dataplane", "web-1", "-o", "json").stdout)
    [found] = shown["dataplaneInsight"]["subscriptions"]
    assert [(entry["typeUrl"], entry["sentVersion"]) for entry in found["status"]["types"]] == [
        (types[0]["typeUrl"], "b" * 32),
        (types[1]["typeUrl"], "7"),
        ("opaque", "7"),
        ("x.Secret", "8"),
    ]
    assert found["status"]["types"][0]["bytesSent"] == "2048"


def test_who_is_not_there(kumafast: Command, mesh: Api) -> None:
    assert kumafast("inspect", "dataplane", "echo-1", "--type", "nonsense").exit_code == 2
    for aspect in ("status", "policies", "config", "resources"):
        missing = kumafast("inspect", "dataplane", "x", "--type", aspect)
        assert (missing.exit_code, missing.stderr) == (1, "error: there is no Dataplane x in mesh default\n")


@pytest.mark.parametrize(
    ("inbounds", "status"),
    [
        ([{}], "Online"),
        ([], "Online"),
        ([{"state": "NotReady"}], "Offline"),
        ([{"health": {"ready": False}}], "Offline"),
        ([{}, {"state": "NotReady"}], "Partially degraded"),
        ([{}, {"state": "Ignored"}], "Online"),
    ],
)
def test_status_counts_the_inbounds_that_are_ready(inbounds: list[dict[str, Any]], status: str) -> None:
    networking = {"inbound": [inbound(8080 + number, **over) for number, over in enumerate(inbounds)]}
    overview = {"dataplane": {"networking": networking}, "dataplaneInsight": {"subscriptions": [subscription()]}}
    assert inspection.status_of(overview) == status
    closed = {"subscriptions": [subscription(disconnectTime=ago(minutes=1))]}
    assert inspection.status_of({**overview, "dataplaneInsight": closed}) == "Offline"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h")),
        *((86400, "1d"), (364 * 86400, "364d"), (365 * 86400, "1y"), (800 * 86400, "2y")),
    ],
)
def test_ages_are_said_in_their_greatest_unit(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 23, 12, 0, 0, 500000, tzinfo=UTC)
    moment = (now - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    assert age(moment, now=now) == text


def test_moments_that_are_none() -> None:
    assert [age(moment) for moment in (None, "", "0001-01-01T00:00:00Z", "yesterday")] == ["never"] * 4
    assert parse_time("2026-11-23T06:39:18.54Z") == datetime(2026, 11, 23, 6, 39, 18, 540000, tzinfo=UTC)
    assert parse_time("2026-11-23T06:39:18.543428676+01:00") == datetime(2026, 11, 23, 5, 39, 18, 543428, tzinfo=UTC)


def test_tables_have_no_blanks_at_their_ends() -> None:
    assert table(("A", "LONGER", "B"), [["", "x", ""], ["wide cell", "", "y"]]) == (
        "A           LONGER   B\n            x\nwide cell            y"
    )
    assert table(("A", "B"), []) == "A     B"


def test_tags_of_several_inbounds_are_merged() -> None:
    assert tags_text([{"b": "2", "a": "1"}, {"b": "1"}, {}]) == "a=1 b=1,2"


def test_a_mesh_gateway_and_its_dataplanes(kumafast: Command, mesh: Api) -> None:
    for resource in (gateway_dataplane(), mesh_gateway(), gateway_route()):
        mesh.run(mesh.store.put(resource))
    for kind, name in (("meshgateway", "edge"), ("mgw", "edge"), ("meshgatewayroutes", "r")):
        lines = kumafast("inspect", kind, name).stdout.splitlines()
        assert lines == ["MESH      DATAPLANE", "default   edge-1"]
    assert json.loads(kumafast("inspect", "meshgateway", "edge", "-o", "json").stdout)["total"] == 1
    missing = kumafast("inspect", "meshgateway", "nobody")
    assert (missing.exit_code, missing.stderr) == (1, "error: there is no MeshGateway nobody in mesh default\n")
