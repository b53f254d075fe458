"""The demo's third step: mutual TLS, and permissions one at a time, each with the time from its write to its effect.

In: a `Stage` with an echo service and two clients. Out: a sentence for each thing proved. Never: an effect that was
not seen from outside, by a request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from kumafast.cli.demo_steps import Stage
from kumafast.cli.failure import CommandError

CLIENT, STRANGER, SERVICE = "client", "stranger", "echo-2"

_EFFECT_S = 20.0
_TIMEOUT_S = 5.0
# What was seen once must hold: an Envoy ends its older connections with the next answer on them.
_IN_A_ROW = 3
_ANSWERED = "200"

_SECURED = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
}
_PERMISSION = {
    "type": "TrafficPermission",
    "mesh": "default",
    "name": "client-to-echo",
    "sources": [{"match": {"kuma.io/service": CLIENT}}],
    "destinations": [{"match": {"kuma.io/service": "echo"}}],
}
_MESH_PATH = "/meshes/default"
_PERMISSION_PATH = "/meshes/default/traffic-permissions/client-to-echo"


def see_it_open(stage: Stage) -> str:
    """Everybody is answered, also without a sidecar."""
    _await(stage, {CLIENT: True, STRANGER: True, SERVICE: True}, since=time.monotonic())
    return "still open: client and stranger are answered by echo, and so is plaintext that comes past the sidecars"


def turn_tls_on(stage: Stage) -> str:
    """Plaintext is refused, and nobody has a permission."""
    began = _write(stage, _MESH_PATH, _SECURED)
    effect = _await(stage, {CLIENT: False, STRANGER: False, SERVICE: False}, since=began)
    return (
        f"mutual TLS on, closed {effect.ms(*effect.seen)} after its write: "
        f"plaintext to echo's sidecar {effect.of(SERVICE)}, client {effect.of(CLIENT)}, stranger {effect.of(STRANGER)}"
    )


def permit_client(stage: Stage) -> str:
    """The client is let in, alone, and echo sees who it is."""
    began = _write(stage, _PERMISSION_PATH, _PERMISSION)
    effect = _await(stage, {CLIENT: True, STRANGER: False, SERVICE: False}, since=began)
    caller = _caller(stage)
    if caller != "spiffe://default/client":
        raise CommandError(f"echo was called by client and saw {caller or 'nobody'}")
    return (
        f"client permitted, open {effect.ms(CLIENT)} after its write: echo sees {caller}; "
        f"stranger is still shut out and {effect.of(STRANGER)}, plaintext {effect.of(SERVICE)}"
    )


def take_permission_away(stage: Stage) -> str:
    """The client is shut out again."""
    began = _write(stage, _PERMISSION_PATH, None)
    effect = _await(stage, {CLIENT: False, STRANGER: False, SERVICE: False}, since=began)
    return f"permission deleted, closed {effect.ms(CLIENT)} after that: client {effect.of(CLIENT)} again"


@dataclass(slots=True)
class _Effect:
    """By sidecar how requests to it end, and after how many seconds they first did so as wanted."""

    seen: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, answer: str, *, seconds: float, is_wanted: bool) -> None:
        self.seen[name] = answer
        if is_wanted:
            self.seconds.setdefault(name, seconds)
        else:
            self.seconds.pop(name, None)

    def ms(self, *names: str) -> str:
        return f"{max(self.seconds[name] for name in names) * 1000:.0f} ms"

    def of(self, name: str) -> str:
        answer = self.seen[name]
        return f"gets {answer}" if answer.isdigit() else answer


def _write(stage: Stage, path: str, document: Mapping[str, Any] | None) -> float:
    """Put a document, or delete what is there; the monotonic second at which that began."""
    with httpx.Client(base_url=stage.api, timeout=_TIMEOUT_S) as http:
        began = time.monotonic()
        answer = http.delete(path) if document is None else http.put(path, json=document)
    if answer.status_code not in (200, 201):
        raise CommandError(f"writing {path} was answered with {answer.status_code}:", answer.text.splitlines())
    return began


def _await(stage: Stage, wanted: Mapping[str, bool], *, since: float) -> _Effect:
    """Wait until requests to each sidecar's port are answered, or are not, as wanted, several times in a row.

    `CommandError` where that does not happen.
    """
    effect = _Effect()
    rounds = 0

    def has_settled() -> bool | None:
        nonlocal rounds
        for name, is_answered in wanted.items():
            answer = _ask(http, stage.url_of(name))
            is_wanted = (answer == _ANSWERED) == is_answered
            effect.note(name, answer, seconds=time.monotonic() - since, is_wanted=is_wanted)
        rounds = rounds + 1 if effect.seconds.keys() == wanted.keys() else 0
        return True if rounds >= _IN_A_ROW else None

    with httpx.Client(timeout=_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        try:
            stage.processes.await_value("the effect", has_settled, timeout_s=_EFFECT_S)
        except CommandError as error:
            last = f"wanted answers for {dict(wanted)} and saw {effect.seen} at last"
            raise CommandError(last, error.details) from error
    return effect


def _ask(http: httpx.Client, url: str) -> str:
    """How one request on a connection of its own ends: its status, or that there is no answer."""
    try:
        return str(http.get(url).status_code)
    except httpx.TransportError:
        return "is reset"


def _caller(stage: Stage) -> str:
    """Whose certificate echo's sidecar saw, by the service's own account."""
    answer = httpx.get(stage.url_of(CLIENT), timeout=_TIMEOUT_S).json()
    found = re.search(r"URI=(spiffe://[^;,]+)", str(answer.get("caller", "")))
    return "" if found is None else found[1]
