"""Every attack in turn, and all of them at once, against one server with neighbours; what each did to whom.

`python -m tests.attack.campaign --neighbours 1000 --seconds 3` prints a line for each; `--output FILE` adds a table, in
which a delay is compared with the worst that there was with nobody attacking in the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import cast

from bench import ending
from bench.flags import count, positive
from tests.attack.foe import Target
from tests.attack.health_attacks import ATTACKS
from tests.attack.neighbours import Delays, Neighbours, neighbours
from tests.attack.victim import Setup, Usage, VictimProcess, victim
from tests.stream.grpc_client import create_certificate

from kumafast.stream import TlsFiles

ALL = "all at once"
NOBODY = "(nobody)"
# The machine's own noise is looked at again after so many attacks.
_NOBODY_EACH = 16
_NICENESS = 10


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one attack came to. `turn_units`: the longest turn of the server's loop, in empty loops of a million."""

    name: str
    outcomes: Counter[str]
    delays: Delays
    during: Usage
    turn_units: float
    cpu_s: float

    def __str__(self) -> str:
        ends = ", ".join(f"{outcome} x{count}" for outcome, count in self.outcomes.most_common(3))
        return (
            f"{self.name:52} {ends:44} p99 {self.delays.p99_ms:6.1f} max {self.delays.max_ms:6.1f} ms"
            f"  turn {self.during.turn_max_s * 1e3:6.1f} ms = {self.turn_units:4.2f} units"
            f"  seen {self.delays.count:5} cpu {self.cpu_s:5.2f} s  RSS max {self.during.rss_max_bytes / 1e6:5.0f} MB"
            + (f"  LOST {self.delays.lost}" if self.delays.lost else "")
        )


def as_table(results: Sequence[Result], title: str) -> str:
    """Markdown: what the neighbours' pushes took beside each attack, and the longest turn of the server's own clock."""
    alone = [result.delays for result in results if result.name == NOBODY]
    p99, longest = max(each.p99_ms for each in alone), max(each.max_ms for each in alone)
    lines = [f"## {title}", ""]
    lines += ["| attack | ends | pushes seen | p50 ms | p99 ms | max ms | added to p99 | added to max | turn, CPU ms |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for result in results:
        ends = ", ".join(f"{outcome} × {count:,}" for outcome, count in result.outcomes.most_common(3))
        delays, turn = result.delays, result.during.turn_max_s * 1e3
        seen = f"{delays.count:,}" + (f", {delays.lost} lost" if delays.lost else "")
        times = f"{delays.p50_ms:.1f} | {delays.p99_ms:.1f} | {delays.max_ms:.1f}"
        added = f"{max(0.0, delays.p99_ms - p99):.1f} | {max(0.0, delays.max_ms - longest):.1f}"
        lines.append(f"| {result.name} | {ends} | {seen} | {times} | {added} | {turn:.1f} |")
    return "\n".join([*lines, ""])


def as_figures(results: Sequence[Result]) -> dict[str, float]:
    """What all attacks come to: the longest that a neighbour's push took, beside whom, and the longest turn."""
    alone = [result for result in results if result.name == NOBODY]
    beside = [result for result in results if result.name not in (NOBODY, ALL)]
    together = [result for result in results if result.name == ALL]
    found = {
        "attacks": len(beside),
        "neighbours_lost": sum(result.delays.lost for result in results),
        "nobody_least_longest_ms": min(result.delays.max_ms for result in alone),
        "nobody_longest_ms": max(result.delays.max_ms for result in alone),
        "longest_turn_cpu_s": max(result.during.turn_max_s for result in results),
    }
    if beside:
        found["one_longest_ms"] = max(result.delays.max_ms for result in beside)
    if together:
        found["all_at_once_longest_ms"] = max(result.delays.max_ms for result in together)
    return found


def repeat(name: str, target: Target, outcomes: Counter[str]) -> None:
    """Carry out one attack again and again, until it is time."""
    while True:
        outcomes[ATTACKS[name].carry_out(target)] += 1
        if target.left_s == 0:
            return


def attack(pipe: Pipe) -> None:
    """The main function of the attackers' process: (names, port, seconds, is_tls) on the pipe, answered by outcomes."""
    ending.by_its_parent()
    # Attackers have machines of their own; here they leave the processor to those that are measured.
    os.nice(_NICENESS)
    pipe.send("ready")
    while (order := pipe.recv()) != "stop":
        names, port, seconds, is_tls = order
        context = None
        if is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        target = Target(port, time.monotonic() + seconds, context)
        found: dict[str, Counter[str]] = {name: Counter() for name in names}
        threads = [threading.Thread(target=repeat, args=(name, target, found[name])) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send(found)


@contextmanager
def attackers() -> Iterator[Callable[[Sequence[str], int, float, bool], dict[str, Counter[str]]]]:
    """A process that carries out attacks by name, at a port, for so many seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=attack, args=(there,), daemon=True)
    process.start()
    there.close()

    def carry_out(names: Sequence[str], port: int, seconds: float, is_tls: bool) -> dict[str, Counter[str]]:
        here.send((names, port, seconds, is_tls))
        if not here.poll(seconds + 60):
            raise TimeoutError(f"{names} do not end")
        return cast(dict[str, Counter[str]], here.recv())

    try:
        if not here.poll(60):
            raise TimeoutError("the attackers do not start")
        here.recv()
        yield carry_out
        here.send("stop")
        process.join(10)
    finally:
        process.kill()
        process.join()


class Campaign:
    """A server, its neighbours, and attackers, for one attack after the other."""

    def __init__(
        self,
        server: VictimProcess,
        others: Neighbours,
        carry_out: Callable[[Sequence[str], int, float, bool], dict[str, Counter[str]]],
        *,
        is_tls: bool,
    ) -> None:
        self.server = server
        self.others = others
        self._carry_out = carry_out
        self.is_tls = is_tls
        self.unit_s = server.unit_s()

    def quiet(self, seconds: float) -> Result:
        """Nobody attacks."""

        def wait() -> dict[str, Counter[str]]:
            time.sleep(seconds)
            return {}

        return self._measure(NOBODY, wait)

    def run(self, name: str, seconds: float) -> Result:
        """One attack, or `ALL`."""
        names = list(ATTACKS) if name == ALL else [name]
        return self._measure(name, lambda: self._carry_out(names, self.server.port, seconds, self.is_tls))

    def _measure(self, name: str, do: Callable[[], dict[str, Counter[str]]]) -> Result:
        # At a glance: to collect the garbage would hold up the server for as long as the worst of attacks.
        before = self.server.glance()
        self.others.report()
        found = do()
        # In this order: once the server answers, it has also sent what was due until then.
        during = self.server.glance()
        time.sleep(0.1)
        delays = self.others.report()
        return Result(
            name=name,
            outcomes=sum(found.values(), Counter()),
            delays=delays,
            during=during,
            turn_units=during.turn_max_s / self.unit_s,
            cpu_s=during.cpu_s - before.cpu_s,
        )


@contextmanager
def campaign(count: int, *, each_s: float, tls: TlsFiles | None = None) -> Iterator[Campaign]:
    """`count` neighbours, each of which gets a push every `each_s` seconds."""
    with (
        attackers() as carry_out,
        victim(Setup(nodes=count, each_s=each_s, tls=tls)) as server,
        neighbours(server.port, count, ca=tls.certificate if tls else None) as others,
    ):
        server.settle(lambda usage: usage.streams == count)
        yield Campaign(server, others, carry_out, is_tls=tls is not None)


def run_all(words: argparse.Namespace, tls: TlsFiles | None) -> list[Result]:
    """Each attack that was asked for, then all of them at once."""
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        sys.stdout.write(f"{result}\n")
        sys.stdout.flush()

    with campaign(words.neighbours, each_s=1.0, tls=tls) as running:
        running.quiet(words.seconds)
        before = running.server.usage()
        chosen = [name for name in [*ATTACKS, ALL] if re.search(words.only, name)]
        for at, name in enumerate(chosen):
            if at % _NOBODY_EACH == 0:
                note(running.quiet(words.seconds))
            note(running.run(name, words.seconds))
        note(running.quiet(words.seconds))
        after = running.server.settle(lambda usage: usage.descriptors <= before.descriptors)
        sys.stdout.write(f"before: {before}\nafter:  {after}\n")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attack.campaign", description=__doc__)
    parser.add_argument("--neighbours", type=count, default=1000)
    parser.add_argument("--seconds", type=positive, default=3.0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--output", type=Path, help="where to append the table")
    parser.add_argument("--json", type=Path, help="what all attacks come to goes here")
    words = parser.parse_args()
    if not any(re.search(words.only, name) for name in [*ATTACKS, ALL]):
        parser.error(f"no attack has {words.only!r} in its name")
    with ending.early(), tempfile.TemporaryDirectory() as folder:
        results = run_all(words, create_certificate(Path(folder)) if words.tls else None)
    if words.json is not None:
        words.json.write_text(json.dumps(as_figures(results), indent=1) + "\n", encoding="utf-8")
    if words.output is not None:
        wire = "TLS" if words.tls else "plaintext"
        with words.output.open("a", encoding="utf-8") as file:
            file.write(as_table(results, f"{words.neighbours:,} neighbours, {wire}, {words.seconds} s each") + "\n")


if __name__ == "__main__":
    main()
