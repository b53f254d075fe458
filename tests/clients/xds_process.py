"""An `XdsServer` as a process of its own, for tests that let it die: told by its standard input what there is.

In: lines of JSON. `{"set": KEY, "resources": [[TYPE, NAME, BASE64], …]}` makes a node's snapshot; `{"serve": …}` opens
the ports; `{"events": 0}` asks for what happened. Out: a line of JSON for each. Never: a snapshot that was not given.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource as limits
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.stream import TlsFiles, XdsServer


class Ledger:
    """An observer: what was sent, taken and refused, by node and number of the node's stream."""

    def __init__(self) -> None:
        self._streams: dict[str, tuple[str, int]] = {}
        self.events: list[list[Any]] = []

    def _note(self, kind: str, stream_id: str, *what: Any) -> None:
        self.events.append([*self._streams[stream_id], kind, *what])

    def stream_opened(self, stream_id: str, node: Node) -> None:
        number = sum(node_id == node.id for node_id, _ in self._streams.values())
        self._streams[stream_id] = (node.id, number)
        self._note("opened", stream_id)

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        self._note("sent", stream_id, type_url, version, size)

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        self._note("acknowledged", stream_id, type_url, version)

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        self._note("rejected", stream_id, type_url, version, message)

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        self._note("synced", stream_id)

    def stream_closed(self, stream_id: str) -> None:
        self._note("closed", stream_id)


class Process:
    """One cache behind two ports: plaintext, and TLS that asks for clients' certificates."""

    def __init__(self) -> None:
        self.cache = SnapshotCache()
        self.ledger = Ledger()
        self.servers: list[XdsServer] = []

    async def do(self, command: dict[str, Any]) -> Any:
        """One command; its answer."""
        if "set" in command:
            resources = [XdsResource(kind, name, base64.b64decode(body)) for kind, name, body in command["resources"]]
            return self.cache.set(command["set"], Snapshot.of(*resources))
        if "serve" in command:
            return [await self._open(port, tls) for port, tls in command["serve"]]
        if "events" in command:
            return self.ledger.events[command["events"] :]
        assert "memory" in command, command
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * limits.getpagesize()

    async def _open(self, port: int, tls: dict[str, str] | None) -> int:
        server = XdsServer(self.cache, observer=self.ledger)
        self.servers.append(server)
        files = None if tls is None else TlsFiles(**{name: Path(path) for name, path in tls.items()})
        return await server.start("127.0.0.1", port, tls=files)


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    process = Process()
    stopping = asyncio.ensure_future(_serve(reader, process))
    loop.add_signal_handler(signal.SIGTERM, stopping.cancel)
    try:
        await stopping
    except asyncio.CancelledError:
        await asyncio.gather(*(server.stop(5.0) for server in process.servers))


async def _serve(reader: asyncio.StreamReader, process: Process) -> None:
    while line := await reader.readline():
        sys.stdout.write(json.dumps(await process.do(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
