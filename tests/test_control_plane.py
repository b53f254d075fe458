"""The whole control plane in one process: starts and stops in order, and real gRPC clients take what it generates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import uvloop
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message
from tests.pipeline import dataplane, service

from kumafast import ControlPlane, Dataplane, Mesh
from kumafast.errors import InvalidResourceError, NotFoundError, SettingsError
from kumafast.settings import Settings
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

MESSAGES: dict[str, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINT: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
}
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


def settings(directory: Path, **over: Any) -> Settings:
    stated: dict[str, Any] = {"data_dir": str(directory), "api_port": 0, "dp_port": 0, "diagnostics_port": 0, **over}
    return Settings(**stated)


def test_it_starts_serves_and_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane, httpx.AsyncClient() as client:
            assert (await client.get(control_plane.diagnostics_url + "/ready")).status_code == 200
            index = (await client.get(control_plane.api_url + "/")).json()
            assert index["instanceId"] == control_plane.instance_id
            assert [mesh.resource.name for mesh in await control_plane.list("Mesh")] == ["default"]
            api_url = control_plane.api_url
        with pytest.raises(httpx.ConnectError):
            httpx.get(api_url)
        left = [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]
        assert left == []

    uvloop.run(main())


def test_bootstrap_is_the_same_over_both_versions_of_http(tmp_path: Path) -> None:
    document = dataplane(name="web-1")

    async def main() -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            await control_plane.put(document)
            base = control_plane.dp_url.replace("grpcs", "https")
            trust = ssl.create_default_context(cafile=str(tmp_path / "dp-server.crt"))
            bodies = (
                b'{"mesh": "default", "name": "web-1"}',
                b'{"mesh": "default", "name": "absent"}',
                b'{"mesh": 1}',
                b"no JSON",
                bytes(4 * 1024 * 1024 + 1),
            )
            seen: dict[str, list[tuple[int, bytes, str | None]]] = {}
            for is_new in (False, True):
                async with httpx.AsyncClient(http1=not is_new, http2=is_new, verify=trust, trust_env=False) as client:
                    requests = [client.build_request("POST", base + "/bootstrap", content=body) for body in bodies]
                    requests += [client.build_request(method, base + "/bootstrap") for method in ("GET", "HEAD")]
                    requests += [client.build_request("GET", base + "/absent?x=%20")]
                    answers = [await client.send(request) for request in requests]
                    (version,) = {answer.http_version for answer in answers}
                    seen[version] = [
                        (answer.status_code, answer.content, answer.headers.get("content-type")) for answer in answers
                    ]
            assert seen["HTTP/2"] == seen["HTTP/1.1"]
            statuses = [status for status, _, _ in seen["HTTP/2"]]
            assert statuses == [200, 404, 422, 400, 413, 405, 405, 404]
            assert b"node:" in seen["HTTP/2"][0][1]

    uvloop.run(main())


def test_what_python_puts_is_checked_and_survives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            with pytest.raises(InvalidResourceError, match="networking"):
                await control_plane.put(Dataplane(name="web", mesh="default"))
            with pytest.raises(NotFoundError):
                await control_plane.get("Dataplane", "web", mesh="default")
            await control_plane.put(Mesh(name="payments"))
            stored = await control_plane.put(dataplane("web", mesh="payments", tags=service("web")))
        async with ControlPlane(settings(tmp_path)) as control_plane:
            again = await control_plane.get("Dataplane", "web", mesh="payments")
            assert again == stored
            revision = await control_plane.delete("Dataplane", "web", mesh="payments")
            assert (await control_plane.converged(revision)).is_converged

    uvloop.run(main())


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path / "a")) as first:
            taken = int(first.dp_url.rpartition(":")[2])
            second = ControlPlane(settings(tmp_path / "b", dp_port=taken))
            with pytest.raises(OSError, match="address already in use"):
                await second.start()
            with pytest.raises(SettingsError):
                _ = second.store
            # Its files are free again, and so are its ports.
            async with ControlPlane(settings(tmp_path / "b")):
                pass

    uvloop.run(main())


def request(*, uses_delta: bool, type_url: str, nonce: str = "", names: list[str] | None = None) -> bytes:
    """A first request with the node, or the ACK of a response."""
    node = base_pb2.Node(id="default.web", cluster="web")
    if uses_delta:
        subscribe = [] if nonce else names
        message: Message = discovery_pb2.DeltaDiscoveryRequest(
            node=node, type_url=type_url, response_nonce=nonce, resource_names_subscribe=subscribe
        )
    else:
        message = discovery_pb2.DiscoveryRequest(
            node=node, type_url=type_url, response_nonce=nonce, resource_names=names
        )
    return message.SerializeToString()


def resources(response: bytes, *, uses_delta: bool) -> tuple[str, str, dict[str, Message]]:
    """Type, nonce and the resources by name, each parsed as what it says that it is."""
    if uses_delta:
        delta = discovery_pb2.DeltaDiscoveryResponse.FromString(response)
        packed = [item.resource for item in delta.resources]
        type_url, nonce = delta.type_url, delta.nonce
    else:
        sotw = discovery_pb2.DiscoveryResponse.FromString(response)
        packed, type_url, nonce = list(sotw.resources), sotw.type_url, sotw.nonce
    messages = [MESSAGES[item.type_url].FromString(item.value) for item in packed]
    return type_url, nonce, {getattr(item, "name", "") or item.cluster_name: item for item in messages}  # type: ignore[attr-defined]


async def warm(control_plane: ControlPlane, *, uses_delta: bool) -> dict[str, dict[str, Message]]:
    """Do what an Envoy does at its start: clusters, their endpoints, listeners; each is acknowledged."""
    certificate = (control_plane.settings.data_path / "dp-server.crt").read_bytes()
    credentials = grpc.ssl_channel_credentials(certificate)
    method = ADS + ("DeltaAggregatedResources" if uses_delta else "StreamAggregatedResources")
    held: dict[str, dict[str, Message]] = {}
    outgoing: asyncio.Queue[bytes] = asyncio.Queue()

    async def requests() -> AsyncIterator[bytes]:
        while True:
            yield await outgoing.get()

    async with grpc.aio.secure_channel(control_plane.dp_url.removeprefix("grpcs://"), credentials) as channel:
        open_stream = channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)
        call: Any = open_stream(requests())
        names: dict[str, list[str]] = {CLUSTER: [], LISTENER: []}
        for type_url in (CLUSTER, ENDPOINT, LISTENER):
            if type_url == ENDPOINT:
                names[ENDPOINT] = [name for name, item in held[CLUSTER].items() if item.type == 3]  # type: ignore[attr-defined]
            await outgoing.put(request(uses_delta=uses_delta, type_url=type_url, names=names[type_url]))
            got, nonce, held[type_url] = resources(await asyncio.wait_for(call.read(), 10), uses_delta=uses_delta)
            assert got == type_url
            await outgoing.put(request(uses_delta=uses_delta, type_url=type_url, nonce=nonce, names=names[type_url]))
        # An acknowledgement is answered by silence.
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.read())), 0.3)
        call.cancel()
    return held


@pytest.mark.parametrize("uses_delta", [True, False], ids=["delta", "sotw"])
def test_a_grpc_client_takes_all_that_is_generated(tmp_path: Path, uses_delta: bool) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            http = service("backend", **{"kuma.io/protocol": "http"})
            await control_plane.put(dataplane("backend", address="10.0.0.7", tags=http))
            await control_plane.put(dataplane("db", address="10.0.0.8", tags=service("db")))
            web = dataplane("web", tags=service("web"), reaches=[service("backend"), service("db")])
            await control_plane.put(web)
            held = await warm(control_plane, uses_delta=uses_delta)
        assert {"backend", "db", "localhost:8080"} <= held[CLUSTER].keys()
        assert held[ENDPOINT].keys() == {"backend", "db"}
        assert "10.0.0.7" in str(held[ENDPOINT]["backend"])
        listeners = held[LISTENER]
        assert listeners.keys() == {"inbound:10.0.0.1:8080", "outbound:127.0.0.1:10000", "outbound:127.0.0.1:10001"}
        filters = {
            name: item.filter_chains[0].filters[-1].typed_config  # type: ignore[attr-defined]
            for name, item in listeners.items()
        }
        assert filters["outbound:127.0.0.1:10000"].Is(http_connection_manager_pb2.HttpConnectionManager.DESCRIPTOR)
        assert filters["outbound:127.0.0.1:10001"].Is(tcp_proxy_pb2.TcpProxy.DESCRIPTOR)

    uvloop.run(main())
