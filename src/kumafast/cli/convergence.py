"""Wait until the Envoys run what was written.

In: the revision that a write answered with. Out: one line that says how many Envoys took how long. Never: polling; the
control plane answers when it knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast.cli.failure import CommandError

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Return when every affected, connected Envoy has acknowledged.")
]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long --wait waits, such as 500ms, 30s or 2m.")
]
TIMEOUT_DEFAULT = "30s"

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
# The server answers when its own time is up; the connection must outlive that.
_GRACE_S = 15.0


def seconds_of(duration: str) -> float:
    """The seconds of `500ms`, `30s` or `2m`; `CommandError` for anything else."""
    match = _DURATION.fullmatch(duration)
    if match is None or not float(match[1]):
        raise CommandError(f"{duration!r} is not a duration; write 500ms, 30s or 2m")
    return float(match[1]) * _SECONDS[match[2]]


def wait_for_envoys(client: ApiClient, revision: int | None, *, timeout: str, since: int | None = None) -> str:
    """The line `acknowledged by N proxies in S ms`; `CommandError` with Envoy's words, or who is missing.

    `since` is the revision of the first of several writes, `revision` that of the last.
    """
    if revision is None:
        raise CommandError("the control plane did not say which revision it wrote, so there is nothing to wait for")
    from kumafast.cli.client import json_of

    timeout_s = seconds_of(timeout)
    query = {"revision": str(revision), "since": str(revision if since is None else since), "timeout": timeout}
    report = json_of(client.get("/_convergence", params=query, timeout_s=timeout_s + _GRACE_S))
    rejected = [line for entry in report.get("rejected") or [] for line in refusal_lines(entry)]
    waiting = [f"{node} has not acknowledged" for node in report.get("waiting") or []]
    waiting += [f"the instance {name} does not say whether its proxies have" for name in report.get("missing") or []]
    if rejected:
        refused = "an Envoy rejected it" if all(map(_is_sent, report["rejected"])) else "it cannot be applied"
        raise CommandError(f"the change is stored, but {refused}:", [*rejected, *waiting])
    if not report.get("is_converged"):
        raise CommandError(f"the change is stored, but not every Envoy acknowledged it within {timeout}:", waiting)
    count, took_ms = int(report.get("proxies") or 0), round(float(report.get("seconds") or 0.0) * 1000)
    return f"acknowledged by {count} {'proxy' if count == 1 else 'proxies'} in {took_ms} ms"


def refusal_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """A proxy's refusal in its own words, and below it the policies that have a share in it."""
    type_name = str(entry.get("type_url", "")).rpartition(".")[2]
    policies = [f"{key.get('type')} {key.get('name')}" for key in entry.get("policies") or []]
    if not _is_sent(entry):
        yield f"{entry.get('node')} keeps what it has: {entry.get('message')}"
        where = " ".join(filter(None, (type_name, *(entry.get("resources") or ()))))
        yield f"  so {', '.join(policies)} cannot be applied{' to ' if where else ''}{where}"
        return
    yield f"{entry.get('node')} rejected {type_name}: {entry.get('message')}"
    if policies:
        resources = ", ".join(entry.get("resources") or ()) or f"its resources of type {type_name}"
        yield f"  {resources} {'is' if len(entry.get('resources') or ()) == 1 else 'are'} made by {', '.join(policies)}"


def _is_sent(entry: Mapping[str, Any]) -> bool:
    """Whether an Envoy was sent what is refused, and not kept from it."""
    return bool(entry.get("is_sent", True))
