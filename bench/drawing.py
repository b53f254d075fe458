"""The plots of a day: cost by the size of the mesh, a push by the number of connections, memory, start, storm.

In: a `Document`. Out: SVG files beside it, of those figures that it has. Never: a value that is not in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.document import Document
from bench.readers import KUMA

_SERVERS = {
    "kumafast-linear": ("kumafast, one snapshot for all", "tab:blue"),
    "kumafast-mesh": ("kumafast, one for each node", "tab:cyan"),
    "floor": ("floor: one send and one recv", "black"),
    "go-linear": ("go-control-plane, LinearCache", "tab:orange"),
    "go-snapshot": ("go-control-plane, SnapshotCache", "tab:red"),
    "grpc-aio": ("grpc.aio on uvloop", "tab:green"),
}
# "address" and "tag" cost the same: the one's crosses are to be seen within the other's rings.
_KINDS = {
    "policy_inbounds": ("a policy for all inbounds", "v-", "tab:red"),
    "policy_all": ("a policy for all", "^-", "tab:green"),
    "policy_1_percent": ("a policy for 1 %", "s-", "tab:orange"),
    "protocol": ("a protocol", "D-", "tab:purple"),
    "service": ("an instance of another service", "P-", "tab:brown"),
    "address": ("an address", "x-", "tab:pink"),
    "tag": ("a tag", "o:", "tab:olive"),
    "endpoint": ("an endpoint, 50 affected", "o-", "tab:blue"),
    "outbounds": ("outbounds of one", "<-", "tab:cyan"),
}
_HOLLOW = {"tag": {"markerfacecolor": "none", "markersize": 10}}
Values = Mapping[str, float]
LeftOut = Mapping[str, str]
"""Servers that a part has no figure of, and what is to be said of that in a few words."""


def draw(day: Document, folder: Path) -> list[Path]:
    """Draw what the figures are there for; the files that were written, none where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    # The same picture for the same figures.
    matplotlib.rcParams["svg.hashsalt"] = "kumafast"
    values = {id: figure.value for id, (figure, _) in day.by_id().items()}
    drawn = []
    for name, plot in _PLOTS.items():
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7.5, 5.2), layout="constrained")
        if plot(axes, values, _left_out(day, _PART_OF.get(name, name))):
            path = folder / f"{day.date}-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
        pyplot.close(figure)
    return drawn


def _left_out(day: Document, part: str) -> LeftOut:
    found = {}
    for line in day.runs[part].left_out if part in day.runs else ():
        match = re.match(rf"{part}: ([\w-]+), ([\d,]+) connections: (failed)?", line)
        if match:
            server, count, failed = match.groups()
            found[server] = f"{'failed' if failed else 'left out'} at {count}, see the report"
    return found


def _matching(values: Values, pattern: str) -> dict[tuple[str, ...], float]:
    """Those whose name a pattern matches as a whole, by its groups."""
    found = ((re.fullmatch(pattern, id), value) for id, value in values.items())
    return {match.groups(): value for match, value in found if match}


def _sizes(axes: Any, values: Values, _: LeftOut) -> bool:
    ours = _matching(values, r"sizes\.(\d+)\.(\w+)\.sent_cpu_s")
    for kind, (label, style, color) in _KINDS.items():
        line = sorted((int(size), seconds * 1e3) for (size, each), seconds in ours.items() if each == kind)
        if line:
            axes.plot(*zip(*line, strict=True), style, color=color, label=label, **_HOLLOW.get(kind, {}))
    if not ours:
        return False
    kuma = json.loads(KUMA.read_text(encoding="utf-8"))
    for release, name, label, style in (
        ("2.14.3", "endpoint_cpu_s", "Kuma 2.14.3: an endpoint", "o--"),
        ("3.0-preview", "policy_for_1_percent_cpu_s", "Kuma 3.0 preview: a policy for 1 %", "s--"),
    ):
        line = [(int(size), seconds * 1e3) for size, seconds in kuma[release][name].items()]
        axes.plot(*zip(*line, strict=True), style, color="tab:gray", label=label)
    axes.set(xscale="log", yscale="log", xlabel="dataplanes, all connected", ylabel="processor time of a change, ms")
    _write_plainly(axes.xaxis, axes.yaxis)
    _finish(axes, "What a change costs, with streams in memory; of Kuma, all of it")
    return True


def _push(axes: Any, values: Values, left_out: LeftOut) -> bool:
    ours = _matching(values, r"wire\.push\.([\w-]+)\.(\d+)\.cpu_us")
    if not ours:
        return False
    for server, (label, color) in _SERVERS.items():
        line = sorted((int(count), micros) for (each, count), micros in ours.items() if each == server)
        if line:
            axes.plot(*zip(*line, strict=True), "o-", color=color, label=label)
        elif server in left_out:
            axes.plot([], [], "o-", color=color, label=f"{label}: {left_out[server]}")
    floor: dict[int, list[float]] = {}
    for (_, count), micros in _matching(values, r"wire\.push\.([\w-]+)\.(\d+)\.floor_us").items():
        floor.setdefault(int(count), []).append(micros)
    if floor:
        lowest = sorted((count, min(each)) for count, each in floor.items())
        axes.plot(*zip(*lowest, strict=True), "k--", label=_SERVERS["floor"][0])
    axes.set(yscale="log", xlabel="connections, a stream on each", ylabel="server's processor time of a push, µs")
    axes.set_ylim(bottom=1)
    from matplotlib import ticker

    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    _write_plainly(axes.xaxis, axes.yaxis)
    _finish(axes, "A push of 2 KB with its acknowledgement")
    return True


Bar = tuple[str, float | str, str]
"""Of whom it is, its value or what is said in the place of one, its colour."""


def _bars(axes: Any, rows: Iterable[Bar], show: Callable[[float], str]) -> bool:
    """Bars to the right, the first on top, each with its value."""
    held = list(rows)
    for at, (_, value, color) in enumerate(held):
        bar = axes.barh(at, 0 if isinstance(value, str) else value, color=color)
        axes.bar_label(bar, [value if isinstance(value, str) else show(value)], padding=3)
    axes.set_yticks(range(len(held)), [label for label, _, _ in held])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    _write_plainly(axes.xaxis)
    return any(not isinstance(value, str) for _, value, _ in held)


def _of_servers(values: Values, pattern: str, left_out: LeftOut) -> list[Bar]:
    """The servers at the most connections that the pattern is there for, and those that were left out."""
    found = _matching(values, pattern)
    most = max((int(count) for _, count in found), default=0)
    held: dict[str, float | str] = {
        **left_out,
        **{server: each for (server, at), each in found.items() if at == str(most)},
    }
    return [(label, held[server], color) for server, (label, color) in _SERVERS.items() if server in held]


def _memory(axes: Any, values: Values, left_out: LeftOut) -> bool:
    servers = _of_servers(values, r"wire\.push\.([\w-]+)\.(\d+)\.resident_after_kb", left_out)
    rows: list[Bar] = [(f"stream: {label}", kb, color) for label, kb, color in servers]
    snapshots = {int(size): each for (size,), each in _matching(values, r"sizes\.(\d+)\.proxy_bytes").items()}
    for size, each in sorted(snapshots.items()):
        rows.append((f"snapshot, mesh of {size:,}", each / 1e3, "tab:purple"))
    axes.set_xlabel("resident KB for each proxy")
    axes.set_title("Memory of a proxy")
    return _bars(axes, rows, lambda kb: f"{kb:.1f}")


def _start(axes: Any, values: Values, _: LeftOut) -> bool:
    found = _matching(values, r"sizes\.(\d+)\.(load_cpu_s|snapshots_cpu_s)")
    sizes = sorted({int(size) for size, _ in found})
    if not sizes:
        return False
    bottom = [0.0] * len(sizes)
    for name, label in (("load_cpu_s", "SQLite read and indexed"), ("snapshots_cpu_s", "all snapshots computed")):
        heights = [found.get((str(size), name), 0.0) for size in sizes]
        bars = axes.bar([f"{size:,}" for size in sizes], heights, bottom=bottom, label=label)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    axes.bar_label(bars, [f"{total:.2f} s" for total in bottom], padding=3)
    axes.set(xlabel="dataplanes", ylabel="processor seconds")
    axes.margins(y=0.1)
    axes.set_axisbelow(True)
    _finish(axes, "A cold start", along="y")
    return True


def _storm(axes: Any, values: Values, left_out: LeftOut) -> bool:
    rows = _of_servers(values, r"wire\.storm\.([\w-]+)\.(\d+)\.connect_us", left_out)
    for how, label in (("stopped", "was stopped"), ("killed", "was killed")):
        seconds, streams = (values.get(f"envoys.{how}.{name}") for name in ("server_cpu_s_of_return", "streams_opened"))
        if seconds is not None and streams:
            label = f"a whole kumafast {label}: an Envoy"
            rows.append((label, 1e6 * seconds / streams, "tab:purple"))
    axes.set_xlabel("server's processor time for each client, µs")
    axes.set_title("All come at once")
    return _bars(axes, rows, lambda micros: f"{micros:,.0f}")


def _write_plainly(*axes: Any) -> None:
    """Numbers as people write them, rather than powers of ten."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _finish(axes: Any, title: str, *, along: str = "both") -> None:
    axes.set_title(title)
    axes.grid(visible=True, axis=along, alpha=0.3)
    # Below: within, it lies upon a line sooner or later.
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


_PLOTS: dict[str, Callable[[Any, Values, LeftOut], bool]] = {
    "sizes": _sizes,
    "push": _push,
    "memory": _memory,
    "start": _start,
    "storm": _storm,
}
_PART_OF = {"memory": "push", "start": "sizes"}
"""The part of `make bench` that a plot is of, where it has another name."""
