"""A delta ADS server on grpc.aio, as little as one can write: the cost of grpc.aio and nothing else.

In: TLS files or none. Out: the same pushes as kumafast's, made beforehand and sent as bytes.
Never: parsing of what clients say, which only makes it faster than a server of use.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import uvloop
from bench.wire import control, payload
from grpc import aio

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
# The stubs do not know it.
_EOF = cast(Any, aio).EOF


class _Ads(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self._responses = [
            payload.response(payload.SHARED, payload.load_assignment(payload.SHARED, variant), version=f"{variant:032}")
            for variant in range(payload.VARIANTS)
        ]
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._count = 0
        self._nonce = 0
        self._acknowledged = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method == _METHOD:
            return grpc.stream_stream_rpc_method_handler(self._serve)
        return None

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        if await context.read() is _EOF:
            return
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        queue.put_nowait(self._next())
        reader = asyncio.get_running_loop().create_task(self._read(context, queue))
        self._queues.add(queue)
        try:
            while (response := await queue.get()) is not None:
                await context.write(response)
        finally:
            self._queues.discard(queue)
            reader.cancel()

    async def _read(self, context: Any, queue: asyncio.Queue[bytes | None]) -> None:
        while await context.read() is not _EOF:
            self._acknowledged += 1
        queue.put_nowait(None)

    def _next(self) -> bytes:
        self._nonce += 1
        return self._responses[self._count % payload.VARIANTS] + payload.nonce_field(f"{self._nonce:016}")

    def push(self) -> dict[str, Any]:
        self._count += 1
        for queue in self._queues:
            queue.put_nowait(self._next())
        return {}

    def tell(self) -> dict[str, Any]:
        return {"streams": len(self._queues), "acknowledged": self._acknowledged}


async def main(arguments: argparse.Namespace) -> None:
    server, ads = aio.server(options=[("grpc.so_reuseport", 0)]), _Ads()
    server.add_generic_rpc_handlers((ads,))
    if arguments.certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = (arguments.key.read_bytes(), arguments.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    gc.collect()
    gc.freeze()
    await control.obey(port, {"push": ads.push, "stats": ads.tell})
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    control.raise_descriptor_limit()
    uvloop.run(main(parser.parse_args()))
