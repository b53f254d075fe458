"""The handle of an xDS server process: it can be told what there is, asked what happened, killed and started anew."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from tests.clients.authority import Authority

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0

Contents = dict[str, list[tuple[str, Message]]]
"""For each node the named messages that it is to hold."""


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = DEADLINE_S) -> Any:
    """Return the condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.01)
    return value


class ServerProcess:
    """One server behind a plaintext and a mutual TLS port, which stay the same over its restarts."""

    def __init__(self, authority: Authority, log: Path) -> None:
        self._authority = authority
        self._log = log.open("ab")
        self._child: subprocess.Popen[str] | None = None
        self._contents: Contents = {}
        self.plain_port = self.mtls_port = 0

    def start(self) -> None:
        """Start with what was set so far; the ports open when all of it is there."""
        command = [sys.executable, "-m", "tests.clients.xds_process"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._child = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        for node in self._contents:
            self._send(node)
        files = self._authority
        tls = {"certificate": str(files.server.certificate), "key": str(files.server.key), "client_ca": str(files.ca)}
        ports = self._ask({"serve": [[self.plain_port, None], [self.mtls_port, tls]]})
        self.plain_port, self.mtls_port = ports

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process; its exit code. What was set is kept for the next one."""
        if self._child is None:
            return 0
        child, self._child = self._child, None
        child.send_signal(how)
        try:
            code = child.wait(10)
        finally:
            child.kill()
            child.wait()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.close()
            child.stdout.close()
        return code

    def close(self) -> None:
        """End the process and its log."""
        self.stop()
        self._log.close()

    def set(self, node: str, resources: Iterable[tuple[str, Message]]) -> None:
        """Make these a node's resources, now or when the process starts."""
        self._contents[node] = list(resources)
        if self._child is not None:
            self._send(node)

    def _send(self, node: str) -> None:
        resources = [
            [
                f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
                name,
                base64.b64encode(message.SerializeToString(deterministic=True)).decode(),
            ]
            for name, message in self._contents[node]
        ]
        self._ask({"set": node, "resources": resources})

    def events(self, node: str, *, since: int = 0, stream: int | None = None) -> list[list[Any]]:
        """What happened on a node's streams, or on the one with a number: `["sent", type, version, size]`, …."""
        events = self._ask({"events": since})
        return [event[2:] for event in events if event[0] == node and stream in (None, event[1])]

    def streams(self, node: str) -> dict[int, list[str]]:
        """What happened on each of a node's streams, by its number, the newest last."""
        found: dict[int, list[str]] = {}
        for owner, stream, *event in self._ask({"events": 0}):
            if owner == node:
                found.setdefault(stream, []).append(" ".join(map(str, event)))
        return found

    def unanswered(self, node: str) -> int:
        """How many responses on the node's streams that are still open it has neither acknowledged nor rejected."""
        step = {"sent": 1, "acknowledged": -1, "rejected": -1}
        counts: Counter[int] = Counter()
        for owner, stream, kind, *_ in self._ask({"events": 0}):
            if owner == node:
                counts[stream] = 0 if kind == "closed" else counts[stream] + step.get(kind, 0)
        return counts.total()

    def events_count(self) -> int:
        """How many events of all nodes there were: where to look from for later ones."""
        return len(self._ask({"events": 0}))

    def memory_bytes(self) -> int:
        """The resident memory of the process."""
        return int(self._ask({"memory": 0}))

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, f"the server process is gone; see {self._log.name}"
        return json.loads(line)
