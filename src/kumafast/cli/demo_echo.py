"""The demo's workload: an HTTP/1.1 server that says which instance of it answers.

In: `python -m kumafast.cli.demo_echo NAME PORT`. Out: `{"instance": NAME, "path": …}` to every request, with `caller`
where the sidecar says whose certificate it saw. Never: more of HTTP than a sidecar on the same machine needs.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

_HEAD_MAX = 64 * 1024


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, name: str) -> None:
    """Answer the requests of one connection until its client closes it."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
            await reader.readexactly(int(headers.get("content-length", 0)))
            said = {"instance": name, "path": head[0].split(" ")[1]}
            if "x-forwarded-client-cert" in headers:
                said["caller"] = headers["x-forwarded-client-cert"]
            body = json.dumps(said).encode() + b"\n"
            start = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(start.encode() + body)
            await writer.drain()
            if headers.get("connection", "").lower() == "close":
                return
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError, IndexError):
        # The client has gone, or speaks something else; either way there is nobody to answer.
        pass
    finally:
        writer.close()


async def serve(name: str, port: int) -> None:
    """Serve on loopback until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = await asyncio.start_server(
        lambda reader, writer: answer(reader, writer, name=name), "127.0.0.1", port, limit=_HEAD_MAX
    )
    await stopping.wait()
    # Not wait_closed(): from Python 3.12 on it waits for clients, and sidecars keep their connections.
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
