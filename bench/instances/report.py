"""`python -m bench.instances.report FILE...`: what `bench.instances` measured, beside what it must show.

In: the JSON of its parts. Out: tables in Markdown, of which `bench/results/<date>-instances.md` is one. Never: a figure
that is not in the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What was looked at, what came out, and what it may come to; empty where nothing is asked for."""

    what: str
    figure: str
    limit: str = ""


def rows(document: Mapping[str, Any]) -> list[Row]:
    """The rows of one part."""
    return list(_PARTS[document["part"]](document["figures"]))


def _kills(figures: Mapping[str, Any]) -> Iterator[Row]:
    lost = sum(line.startswith("lost") for line in figures["differences"])
    connected = sorted(each["connected_s"] for each in figures["each"])
    equal, push = figures["all_equal_s"], figures["survivors_push_s"]
    yield Row(f"{figures['kills']} kills, {figures['proxies']:,} Envoys; changes a second that were written",
              f"{figures['writes_a_second']:.0f}", "100 wanted")  # fmt: skip
    yield Row("acknowledged writes that were lost", f"{lost} of {figures['acknowledged']:,}", "0")
    yield Row("Envoys that held something else after a kill", f"{len(figures['differences']) - lost}", "0")
    yield Row("resources that were sent to who held them", f"{figures['sent_again']}", "0")
    yield Row("all connected again: median, longest",
              f"{connected[len(connected) // 2]:.2f} s, {connected[-1]:.2f} s")  # fmt: skip
    yield Row("all equal, with 5 s of load after each kill: median, longest",
              f"{equal['median']:.1f} s, {equal['longest']:.1f} s", "10 s")  # fmt: skip
    for who, seen in (("witness", "a witness that has little else to do"), ("all", "the process of all other Envoys")):
        yield Row(f"push to who stayed, as seen by {seen}: p50, p99, longest, pushes",
                  f"{_push(push[who])}", "p99 500 ms" if who == "witness" else "")  # fmt: skip


def _outages(figures: Mapping[str, Any]) -> Iterator[Row]:
    ways = ("stopped", "killed", "cut off")
    seconds = f"{figures['seconds']:.0f} s {', '.join(ways)}, {figures['proxies']:,} Envoys"

    def of_each(show: Callable[[Mapping[str, Any]], object]) -> str:
        return "; ".join(str(show(figures[way])) for way in ways)

    yield Row(f"{seconds}; answers to writes meanwhile", of_each(lambda way: _counts(way["refused"])), "503")
    yield Row("longest wait for it, as seen by the load; by the witness",
              of_each(lambda way: f"{way['refused_after_s']['longest']:.1f} s, "
                                  f"{way['refused_after_s']['longest_of_witness']:.1f} s"), "5 s")  # fmt: skip
    yield Row("streams lost", of_each(lambda way: way["streams_lost"]), "0")
    yield Row("Envoys that came back meanwhile, two new ones configured after, lists read after",
              of_each(lambda way: f"{way['came_back_meanwhile']}, {way['newcomers_served_s']:.2f} s, "
                                  f"{way['read_s']:.2f} s"))  # fmt: skip
    yield Row("first write after the return, slower instance",
              of_each(lambda way: f"{max(way['writes_again_after_s']):.1f} s"), "5 s")  # fmt: skip
    yield Row("sent again, Envoys that held something else afterwards",
              of_each(lambda way: f"{way['sent_again']}, {len(way['differences'])}"), "0, 0")  # fmt: skip


def _workers(figures: Mapping[str, Any]) -> Iterator[Row]:
    for kind, name in (("stopped", "client stopped until all was sent"), ("reading", "client reads meanwhile")):
        one, two = figures["workers_1"][kind], figures["workers_2"][kind]
        ratio = figures[f"ratio_{kind}"]
        push = f"push of {figures['message_bytes'] / 1000:.0f} KB to {figures['streams']:,} streams, {name}"
        yield Row(f"{push}: pushes a second by one worker, by two",
                  f"{one['pushes_a_second']:,.0f}, {two['pushes_a_second']:,.0f}")  # fmt: skip
        yield Row("CPU of one; of two together; of the busier of two; of the client",
                  f"{one['cpu_of_all_workers_s']:.2f} s; {two['cpu_of_all_workers_s']:.2f} s; "
                  f"{two['cpu_of_the_busiest_s']:.2f} s; {two['client_cpu_s']:.2f} s")  # fmt: skip
        yield Row("two against one: by elapsed time; by CPU of the busier",
                  f"{ratio['by_elapsed']:.2f}; {ratio['by_cpu_of_the_busier']:.2f}",
                  "1.7" if kind == "stopped" else "")  # fmt: skip
    killed = figures["killed"]
    yield Row(f"one of two workers killed: its {killed['of_the_dead']:,} of {killed['proxies']:,} proxies back",
              f"{killed['back_after_s']:.2f} s", "2 s")  # fmt: skip
    yield Row("resources that they were sent", f"{killed['sent_again']}", "0")


def _upgrade(figures: Mapping[str, Any]) -> Iterator[Row]:
    schemas, steps = figures["schema"], figures["steps"]
    yield Row(f"schemas that {figures['from']} and today's know; Envoys",
              f"{schemas['older']}, {schemas['today']}; {figures['proxies']:,}")  # fmt: skip
    for name, step in steps.items():
        differences = step["differences"]
        held = differences if isinstance(differences, str) else str(len(differences))
        what = "written, refused; reads; streams lost, writes lost, differences; push p99 to who stayed"
        yield Row(f"{name}, database at schema {step['schema_held']}: {what}",
                  f"{step['acknowledged']:,}, {_counts(step['writes_refused']) or 0}; {_counts(step['reads'])}; "
                  f"{step['streams_lost']}, {len(step['lost'])}, {held}; {step['push_s']['p99'] * 1000:.0f} ms",
                  "0 refused and lost")  # fmt: skip


_PARTS: dict[str, Callable[[Mapping[str, Any]], Iterator[Row]]] = {
    "kills": _kills,
    "outages": _outages,
    "workers": _workers,
    "upgrade": _upgrade,
}


def _push(figures: Mapping[str, float]) -> str:
    p50, p99, longest = (figures[name] * 1000 for name in ("p50", "p99", "longest"))
    return f"{p50:.1f} ms, {p99:.0f} ms, {longest:.0f} ms, {figures['pushes']:,}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {status}" for status, count in counts.items())


def text(document: Mapping[str, Any]) -> str:
    """One part, to be read in a terminal."""
    found = rows(document)
    return "".join(f"{row.what}: {row.figure}{f' (limit {row.limit})' if row.limit else ''}\n" for row in found)


def markdown(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """All parts, by the names of their files."""
    dates = sorted({document["date"] for document in documents.values()})
    head = f"# Instances under load, {', '.join(dates)}\n\nWritten by `python -m bench.instances.report`. PostgreSQL, "
    head += "instances, Envoys and writers were on one machine together.\n"
    return head + "".join(chain.from_iterable(_section(*each) for each in documents.items()))


def _section(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    machine = document["machine"]
    # Older documents have a name of their own for it.
    load = machine["load_before"] if "load_before" in machine else machine["load_average_before"]
    yield f"\n## `{document['part']}` ({name})\n\n{machine['cores']} cores, load average {load:.1f} before it, "
    yield f"{document['seconds']:.0f} s, `{document['command']}` at {document['revision']}\n\n"
    yield "| what | figure | limit |\n|---|---|---|\n"
    for row in rows(document):
        yield f"| {row.what} | {row.figure} | {row.limit} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instances.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, help="the Markdown goes here")
    arguments = parser.parse_args()
    written = markdown({path.name: json.loads(path.read_text(encoding="utf-8")) for path in arguments.files})
    sys.stdout.write(written)
    if arguments.output:
        arguments.output.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
