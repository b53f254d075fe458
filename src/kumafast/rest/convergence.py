"""Waiting over HTTP until the proxies run what was stored. Ours, not Kuma's.

In: a revision of the store and how long to wait. Out: a report, also where the time was too short. Never: the waiting
itself; who watches the proxies does that.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from kumafast.errors import Violation
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import InvalidQueryError, json_response
from kumafast.rest.rejections import documents
from kumafast.rest.services import ApiServices

TIMEOUT_S_DEFAULT: Final = 10.0
TIMEOUT_S_MAX: Final = 600.0

_LEFT_S_MIN: Final = 0.001

_REVISION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def convergence(services: ApiServices) -> Handler:
    """`GET /_convergence?revision=N&since=M&timeout=10s`: 200 with the report, whether or not all got there in time.

    `since` is the first of several revisions that it is about, `revision` the last.
    """

    async def wait(request: Request) -> Response:
        """Wait until all affected, connected proxies run a revision of the store."""
        revision = _revision(request.query_params.get("revision", ""), "revision")
        since = request.query_params.get("since", "")
        first = _revision(since, "since") if since else revision
        timeout_s = _timeout_s(request.query_params.get("timeout", ""))
        deadline, left_s = time.monotonic() + timeout_s, timeout_s
        while True:
            query = f"revision={revision}&since={first}&timeout={left_s:.3f}s"
            own, others = await asyncio.gather(
                _own(services, revision, first, left_s),
                services.siblings.ask(request, query=query, wait_s=left_s, since=revision),
            )
            # The proxies of an instance that went away are with others by now.
            left_s = deadline - time.monotonic()
            if others.is_complete or left_s <= _LEFT_S_MIN:
                return json_response(_joined([own, *others.documents], missing=others.missing))

    return wait


async def _own(services: ApiServices, revision: int, first: int, timeout_s: float) -> Mapping[str, Any]:
    """The report about the proxies that are connected to this process."""
    report = await services.await_convergence(revision, timeout_s, since=first)
    return {
        "revision": report.revision,
        "is_converged": report.is_converged,
        "proxies": report.proxies,
        "waiting": list(report.waiting),
        "rejected": await documents(services, report.rejected),
        "seconds": report.seconds,
    }


def _joined(reports: Sequence[Mapping[str, Any]], *, missing: Sequence[str]) -> dict[str, Any]:
    """One report about the proxies of all; `missing` are instances that did not say how theirs are."""
    return {
        "revision": max(report["revision"] for report in reports),
        "is_converged": all(report["is_converged"] for report in reports) and not missing,
        "proxies": sum(report["proxies"] for report in reports),
        "waiting": sorted({node for report in reports for node in report["waiting"]}),
        "rejected": [each for report in reports for each in report["rejected"]],
        "missing": list(missing),
        "seconds": max(report["seconds"] for report in reports),
    }


def _revision(text: str, parameter: str) -> int:
    if not _REVISION.fullmatch(text):
        message = "must be a revision of the store, as in the header X-Kumafast-Revision of a write"
        raise InvalidQueryError(f"Invalid {parameter}", Violation(parameter, message))
    return int(text)


def _timeout_s(text: str) -> float:
    if not text:
        return TIMEOUT_S_DEFAULT
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidQueryError("Invalid timeout", Violation("timeout", "must be a duration such as 10s, 500ms or 2m"))
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= TIMEOUT_S_MAX:
        message = f"must be more than 0 and at most {TIMEOUT_S_MAX:.0f}s"
        raise InvalidQueryError("Invalid timeout", Violation("timeout", message))
    return seconds
