"""What one real client took and refused, in all places that show it: REST, the command, metrics, CSDS."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import uvloop
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from tests.pipeline import dataplane, service
from tests.stream.grpc_client import ADS, open_stream

from kumafast import ControlPlane
from kumafast.cli.inspection import status_text
from kumafast.settings import Settings
from kumafast.snapshot.resource import CLUSTER, LISTENER

NODE = "default.web"


def settings(directory: Path, **over: Any) -> Settings:
    stated: dict[str, Any] = {"data_dir": str(directory), "api_port": 0, "dp_port": 0, "diagnostics_port": 0, **over}
    return Settings(**{"dp_tls": False, "store": "memory", **stated})


async def overview(client: httpx.AsyncClient, api_url: str) -> dict[str, Any]:
    """The overview once the refusal has been stored."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        shown: dict[str, Any] = (await client.get(f"{api_url}/meshes/default/dataplanes/web/_overview")).json()
        subscriptions = shown["dataplaneInsight"].get("subscriptions", [])
        if subscriptions and "responsesRejected" in subscriptions[0]["status"]["total"]:
            return shown
        await asyncio.sleep(0.02)
    raise AssertionError(shown)


def samples(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(kumafast_\S+) (\S+)$", text, re.MULTILINE)}


def test_the_same_is_told_everywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path, insight_flush_ms=1)) as control_plane:
            await control_plane.put(dataplane("web", tags=service("web")))
            address = control_plane.dp_url.removeprefix("grpc://")
            async with grpc.aio.insecure_channel(address) as channel, httpx.AsyncClient() as client:
                stream = open_stream(channel, ADS + "DeltaAggregatedResources", NODE)
                await stream.write(CLUSTER)
                clusters = await stream.read()
                await stream.write(CLUSTER, response_nonce=clusters.nonce)
                await stream.write(LISTENER)
                listeners = await stream.read()
                await stream.write(LISTENER, response_nonce=listeners.nonce, error="bad listener")

                document = await overview(client, control_plane.api_url)
                [subscription] = document["dataplaneInsight"]["subscriptions"]
                status = subscription["status"]
                sent_and_taken = {"responsesSent": "1", "responsesAcknowledged": "1"}
                sent_and_refused = {"responsesSent": "1", "responsesRejected": "1"}
                # What Kuma 2.14 says, in its form and order.
                assert list(status)[:6] == ["lastUpdateTime", "total", "cds", "eds", "lds", "rds"]
                assert status["cds"] == sent_and_taken
                assert (status["lds"], status["eds"], status["rds"]) == (sent_and_refused, {}, {})
                assert status["total"] == {
                    "responsesSent": "2",
                    "responsesAcknowledged": "1",
                    "responsesRejected": "1",
                }
                # What it does not say.
                taken, refused = status["types"]
                version = clusters.system_version_info
                assert taken == {
                    "typeUrl": CLUSTER,
                    **sent_and_taken,
                    "bytesSent": str(clusters.ByteSize()),
                    "sentVersion": version,
                    "acknowledgedVersion": version,
                }
                assert (refused["rejectedVersion"], refused["error"]) == (
                    listeners.system_version_info,
                    "bad listener",
                )
                assert status["lastError"]["message"] == "bad listener"

                text = status_text(document)
                assert "rejected, runs none" in text
                assert ": bad listener" in text

                metrics = samples((await client.get(control_plane.diagnostics_url + "/metrics")).text)
                assert metrics["kumafast_connected_proxies"] == 1
                assert metrics['kumafast_xds_pushes_total{type="Cluster"}'] == 1
                assert metrics['kumafast_xds_bytes_total{type="Cluster"}'] == clusters.ByteSize()
                assert metrics['kumafast_xds_bytes_total{type="Listener"}'] == listeners.ByteSize()
                assert metrics['kumafast_xds_rejects_total{type="Listener"}'] == 1
                assert metrics['kumafast_xds_rejects_total{type="Cluster"}'] == 0

                stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
                answer: Any = await stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=10)
                [config] = answer.config
                assert config.node.id == NODE
                by_type = {each.type_url: each for each in config.generic_xds_configs}
                assert by_type[CLUSTER].config_status == csds_pb2.SYNCED
                assert by_type[LISTENER].config_status == csds_pb2.ERROR
                assert by_type[LISTENER].error_state.details == "bad listener"

    uvloop.run(main())


@pytest.mark.parametrize(
    ("over", "is_served"),
    [
        ({}, True),
        ({"csds": "off"}, False),
        ({"csds": "on"}, True),
        ({"host": "0.0.0.0", "insecure": True}, False),
        ({"host": "0.0.0.0", "insecure": True, "csds": "on"}, True),
    ],
)
def test_everybodys_configuration_is_shown_only_where_it_is_meant_to_be(over: dict[str, Any], is_served: bool) -> None:
    assert Settings(**over).has_csds is is_served


def test_without_csds_its_methods_are_unknown(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            ControlPlane(settings(tmp_path, csds="off")) as control_plane,
            grpc.aio.insecure_channel(control_plane.dp_url.removeprefix("grpc://")) as channel,
        ):
            stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=10)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

    uvloop.run(main())
