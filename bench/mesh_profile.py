"""Where the processor time of a change in a regular mesh goes, by sampling: functions, alone and with what they call.

In: the size of the mesh, a kind of change. Out: a table. Never: a tracer, which counts a call of a function many times
over what it costs: a timer of the process's own CPU time looks at the stack instead.

    python -m bench.mesh_profile 10000 inbounds
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench.flags import mesh_size
from bench.mesh_cost import started
from bench.regular_mesh import for_all, for_cell, for_inbounds

from kumafast import garbage
from kumafast.resources import Resource

KINDS: dict[str, tuple[int, Callable[[int], Resource]]] = {
    "one-percent": (40, for_cell),
    "outbounds": (4, for_all),
    "inbounds": (4, for_inbounds),
}
SHOWN = 45
_PERIOD_S = 0.001


class Samples:
    """How often functions were seen on the stack, at its top and anywhere in it."""

    def __init__(self) -> None:
        self.alone: Counter[str] = Counter()
        self.within: Counter[str] = Counter()
        self.total = 0

    def take(self, _: int, frame: FrameType | None) -> None:
        """Look at the stack, as a handler of a signal."""
        self.total += 1
        if frame is not None:
            self.alone[_name(frame)] += 1
        self.within.update({_name(each) for each in _stack(frame)})

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Look at the stack for each millisecond of CPU time meanwhile."""
        signal.signal(signal.SIGPROF, self.take)
        signal.setitimer(signal.ITIMER_PROF, _PERIOD_S, _PERIOD_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)

    def table(self) -> str:
        """Shares of all samples, those of functions with what they call first."""
        rows = self.within.most_common(SHOWN)
        lines = [f"{count / self.total:7.1%} {self.alone[name] / self.total:7.1%}  {name}" for name, count in rows]
        return "\n".join((f"{self.total} samples", "   with   alone  function", *lines))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name(frame: FrameType) -> str:
    code = frame.f_code
    place = code.co_filename.rpartition("/src/kumafast/")[2]
    if place == code.co_filename:
        place = Path(place).name
    return f"{place}:{code.co_qualname}"


def main() -> None:
    """Measure what the arguments ask for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.mesh_profile", description=__doc__, formatter_class=form)
    parser.add_argument("size", type=mesh_size, help="dataplanes of the mesh")
    parser.add_argument("kind", choices=KINDS, help="what changes: a policy for 1 %%, for all outbounds, inbounds")
    arguments = parser.parse_args()
    size, kind = arguments.size, arguments.kind
    rounds, change = KINDS[kind]
    end = garbage.begin()
    mesh = started(size)
    mesh.change(change(2))
    samples = Samples()
    with samples.taken():
        costs = [mesh.change(change(3 + number)) for number in range(rounds)]
    published = sum(cost.reconcile_s for cost in costs) / rounds * 1e3
    sent = sum(cost.stream_s for cost in costs) / rounds * 1e3
    sys.stdout.write(f"{kind} of {size}: {published:.1f} ms published, {sent:.1f} ms streams\n{samples.table()}\n")
    end()


if __name__ == "__main__":
    main()
