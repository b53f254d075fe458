"""The process beside an Envoy that answers for its metrics, and for those of its workload.

In: where its sockets are; what a MeshMetric says, read on a socket that Envoy opens. Out: metrics over HTTP on a unix
socket, which Envoy leads its clients to, and to collectors. Never: anything between Envoy and its signals, or a life
longer than Envoy's: Envoy has inherited the other end of our standard input, which the kernel closes with it.

Until somebody asks, or metrics are to be sent, nothing but a few modules of the standard library is loaded: there is
one such process for each sidecar, and most are never asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Whether Envoy has opened the socket that says what is to be done, which is a look at a file.
_LOOK_EVERY_S: Final = 5.0
_BACKLOG: Final = 64


def start(*, metrics_socket: str, config_socket: str, admin: Mapping[str, Any]) -> None:
    """Start the process for the Envoy that this process is about to become.

    `admin` is where Envoy's admin interface is, as its bootstrap says it: an address with a pipe or with a port.
    """
    told = json.dumps({"metrics": metrics_socket, "config": config_socket, "admin": admin})
    ours, envoys = os.pipe()
    os.set_inheritable(envoys, True)
    command = [sys.executable, "-m", "kumafast.cli.metrics_server", told]
    try:
        # A session of its own: what is typed at Envoy's terminal is for Envoy.
        subprocess.Popen(command, stdin=ours, stdout=subprocess.DEVNULL, start_new_session=True)
    finally:
        os.close(ours)


def main(arguments: list[str]) -> None:
    """Answer until Envoy is gone."""
    told = json.loads(arguments[0])
    config, path = Path(told["config"]), Path(told["metrics"])
    for stale in (path, config):
        stale.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        mask = os.umask(0o177)
        listener.bind(str(path))
        os.umask(mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        try:
            if _is_needed(listener, config):
                from kumafast.cli import metrics_answers

                metrics_answers.serve(listener, config=str(config), admin=told["admin"])
        finally:
            path.unlink(missing_ok=True)


def _is_needed(listener: socket.socket, config: Path) -> bool:
    """Wait until somebody asks or there is something to do; False where Envoy ends before."""
    while not config.exists():
        readable, _, _ = select.select([listener, sys.stdin], [], [], _LOOK_EVERY_S)
        if sys.stdin in readable:
            return False
        if readable:
            break
    return True


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
