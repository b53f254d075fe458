"""`python -m bench.real_wires.record_node`: ask the installed Envoy how it describes itself, for `envoy_node`.

In: the binary that `kumafast envoy path` names. Out: `envoy_node.binpb.gz`, without what differs from node to node.
Never: more than one run of Envoy, on loopback.
"""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import queue
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
from bench.real_wires.client_frames import DELTA_ADS
from bench.real_wires.envoy_node import RECORDED
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kumafast.cli.envoy import required

WAIT_S = 30.0


def record(binary: Path) -> base_pb2.Node:
    """The node of an Envoy's first request."""
    seen: queue.Queue[base_pb2.Node] = queue.Queue()

    def take(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        seen.put(discovery_pb2.DeltaDiscoveryRequest.FromString(next(requests)).node)
        yield from ()

    _, service, method = DELTA_ADS.decode().split("/")
    handlers = grpc.method_handlers_generic_handler(service, {method: grpc.stream_stream_rpc_method_handler(take)})
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with tempfile.TemporaryDirectory() as directory:
        bootstrap = Path(directory) / "bootstrap.json"
        bootstrap.write_text(json.dumps(_bootstrap(port)), encoding="utf-8")
        command = [str(binary), "--config-path", str(bootstrap), "--use-dynamic-base-id", "--log-level", "error"]
        envoy = subprocess.Popen(command)
        try:
            return seen.get(timeout=WAIT_S)
        finally:
            envoy.terminate()
            envoy.wait(WAIT_S)
            server.stop(None)


def _bootstrap(port: int) -> dict[str, object]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    http2 = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}
    cluster = {
        "name": "ads",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                **http2,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "ads",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
    }
    return {
        "node": {"id": "recorded", "cluster": "recorded"},
        "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {"ads_config": ads, "cds_config": {"ads": {}, "resource_api_version": "V3"}},
    }


def main() -> None:
    node = record(required())
    for name in ("id", "cluster", "metadata", "locality"):
        node.ClearField(name)
    RECORDED.write_bytes(gzip.compress(node.SerializeToString(deterministic=True), mtime=0))


if __name__ == "__main__":
    main()
