"""kumafast's xDS server as the benchmark drives it: the public classes and nothing else.

In: a mode, how many nodes to expect, TLS files. Out: pushes when told so.
Never: a short cut; what is measured is what an embedder of `XdsServer` gets.

`linear`: one snapshot for all. `mesh`: one for each node, of a layer that all share and one of its own; a push replaces
the shared layer in each snapshot, in slices, as the control plane's publisher does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import uvloop
from bench.wire import control, payload

from kumafast.snapshot import Layer, Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.stream import TlsFiles, XdsServer

_ALL = "all"
_SLICE = 64


class _Pushes:
    """Puts the next content of the shared resource into the cache."""

    def __init__(self, cache: SnapshotCache, *, mode: str, nodes: int) -> None:
        self._cache = cache
        self._mode = mode
        self._shared = [
            Layer([XdsResource(payload.TYPE_URL, payload.SHARED, payload.load_assignment(payload.SHARED, variant))])
            for variant in range(payload.VARIANTS)
        ]
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        if mode == "linear":
            cache.set(_ALL, Snapshot([self._shared[0]]))
        else:
            for number in range(nodes):
                own = XdsResource(payload.TYPE_URL, payload.OWN, payload.load_assignment(payload.OWN, number, 1))
                cache.set(payload.node_id(number), Snapshot([self._shared[0], Layer([own])]))

    def push(self) -> dict[str, Any]:
        self._count += 1
        layer = self._shared[self._count % payload.VARIANTS]
        if self._mode == "linear":
            self._cache.set(_ALL, Snapshot([layer]))
        else:
            self._task = asyncio.get_running_loop().create_task(self._replace_in_each(layer))
        return {}

    async def _replace_in_each(self, layer: Layer) -> None:
        for at, node_id in enumerate(self._cache):
            snapshot = self._cache.get(node_id)
            assert snapshot is not None
            self._cache.set(node_id, snapshot.replaced({0: layer}))
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)


def _key_of(mode: str) -> Any:
    def one(node: Node) -> str:
        return _ALL

    def own(node: Node) -> str:
        return node.id

    return one if mode == "linear" else own


async def main(arguments: argparse.Namespace) -> None:
    cache = SnapshotCache()
    pushes = _Pushes(cache, mode=arguments.mode, nodes=arguments.nodes)
    server = XdsServer(cache, node_key=_key_of(arguments.mode))
    tls = None
    if arguments.certificate is not None:
        tls = TlsFiles(certificate=arguments.certificate, key=arguments.key)
    port = await server.start("127.0.0.1", 0, tls=tls)
    gc.collect()
    gc.freeze()
    await control.obey(port, {"push": pushes.push, "stats": lambda: {"streams": server.stream_count}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["linear", "mesh"])
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    control.raise_descriptor_limit()
    uvloop.run(main(parser.parse_args()))
    # Ten thousand connections need no orderly end here.
    os._exit(0)
