"""A TCP proxy that can be cut, in a process of its own: what goes through it must not wait for whoever measures.

In: a port of loopback, when to cut and to mend. Out: a port that leads there. Never: an end that is told of a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from bench import ending


class Cable:
    """The process, as whoever has it sees it."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        """While this lasts it leads somewhere."""
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        process = context.Process(target=_main, args=(child, self._to), daemon=True)
        process.start()
        try:
            self.port = await asyncio.to_thread(self._pipe.recv)
            yield self
        finally:
            process.terminate()
            process.join(10)
            self._pipe.close()

    def cut(self) -> None:
        """Let nothing through."""
        self._pipe.send(False)

    def mend(self) -> None:
        """Let everything through again, what has waited too."""
        self._pipe.send(True)


def _main(pipe: Connection, port: int) -> None:
    ending.by_its_parent()
    uvloop.run(_Process(pipe, port).run())


class _Process:
    """Where bytes and connections wait while it is cut."""

    def __init__(self, pipe: Connection, port: int) -> None:
        self._pipe, self._to = pipe, port
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Until it is ended."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._hear)
        self._pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    def _hear(self) -> None:
        try:
            is_whole = self._pipe.recv()
        except EOFError:
            # Whoever started it has died.
            os._exit(1)
        if is_whole:
            self._whole.set()
        else:
            self._whole.clear()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._whole.wait()
            with contextlib.suppress(OSError):
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
                pumps = [
                    asyncio.create_task(self._pump(reader, to_writer)),
                    asyncio.create_task(self._pump(to_reader, writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
                    to_writer.close()
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
