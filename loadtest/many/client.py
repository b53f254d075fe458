"""The client in C++: built, started, asked; and what it says read again.

In: how many connections and streams, where to connect. Out: counts, arrivals, what each Envoy holds.
Never: what should be held; that is `bench.real_wires.truth`'s.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.real_wires.changes import node_id
from bench.real_wires.envoy_node import described
from bench.real_wires.simulated_envoy import TYPES
from bench.regular_mesh import METADATA
from bench.wire.process import ROOT, Process
from loadtest.outcome import Holding

from kumafast._core import digest

_BUILD = ROOT / "build" / "many"
_TOLD_EACH_S = 1.0
ANSWER_S_MAX = 900.0

Content = tuple[str, str, str]
"""Type, name and version."""


def build() -> Path:
    """The program. Raises CalledProcessError where it cannot be built, and FileNotFoundError without CMake."""
    beside = Path(sys.executable).with_name("cmake")
    cmake = str(beside) if beside.exists() else "cmake"
    source = str(Path(__file__).parent)
    subprocess.run([cmake, "-S", source, "-B", str(_BUILD)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([cmake, "--build", str(_BUILD)], check=True, stdout=subprocess.DEVNULL)
    return _BUILD / "envoys"


class Envoys(Process):
    """All simulated Envoys: those of the dataplanes 0 to `connections` × `each` - 1."""

    def __init__(self, directory: Path, *, port: int, connections: int, each: int) -> None:
        self._directory = directory
        node = directory / "node.binpb"
        node.write_bytes(described(METADATA))
        command = [str(build()), "--port", str(port), "--connections", str(connections), "--streams", str(each)]
        super().__init__([*command, "--node", str(node)], name="the client")

    def open(self, tell: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Connect all, and wait until each could serve; `tell` is called with counts now and then."""
        self.tell("open")
        while True:
            time.sleep(_TOLD_EACH_S)
            self.tell("count")
            answer = self.hear(ANSWER_S_MAX)
            if answer["event"] == "open":
                # The counts were asked for when it was done already.
                self.hear(ANSWER_S_MAX)
                return answer
            tell(answer)

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and wait for its answer."""
        self.tell(line)
        return self.hear(ANSWER_S_MAX)

    def arrivals(self) -> Iterator[tuple[float, int, str]]:
        """The assignments of endpoints since the last `mark`: monotonic second, number of the Envoy, name."""
        with self._written("arrivals").open(encoding="utf-8") as lines:
            for line in lines:
                at, number, name = line.split()
                yield int(at) / 1e9, int(number), name

    def holdings(self) -> tuple[list[Holding], list[str]]:
        """What each Envoy holds; and a line for each resource of which the version is not its content's."""
        contents, wrong = read_contents(self._written("contents"))
        return read_holdings(self._written("holdings"), contents), wrong

    def _written(self, what: str) -> Path:
        path = self._directory / what
        answer = self.ask(f"{what} {path}")
        if not answer["is_whole"]:
            raise OSError(f"the client could not write {path}")
        return path


def read_contents(path: Path) -> tuple[list[Content], list[str]]:
    """Each content that somebody was sent; and a line for each of which the bytes are not its version's."""
    data, at = path.read_bytes(), 0
    contents: list[Content] = []
    wrong = []
    while at < len(data):
        end = data.index(b"\n", at)
        kind, version, size, name = data[at:end].decode().split(" ", 3)
        at = end + 1 + int(size)
        contents.append((TYPES[int(kind)], name, version))
        if digest(data[end + 1 : at]).hex() != version:
            wrong.append(f"{name} came as {version}")
    return contents, wrong


def read_holdings(path: Path, contents: Sequence[Content]) -> list[Holding]:
    """What each Envoy holds of these contents."""
    holdings = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            number, warming, *held = (int(word) for word in line.split())
            by_type: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
            for content in held:
                type_url, name, version = contents[content]
                by_type[type_url][name] = version
            holdings.append(Holding(node_id(number), by_type, ["a cluster"] * warming))
    return holdings
