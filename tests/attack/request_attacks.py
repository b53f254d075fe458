"""The attacks that speak HTTP/2 and gRPC well, and ask for too much, for nonsense, or without an end."""

from __future__ import annotations

import random

from tests.attack.attacks import ATTACKS, CALM, attack, pour
from tests.attack.foe import DELTA, SOTW, Foe, Target, data, delta, field, sotw, windows

__all__ = ["ATTACKS"]

# ---- Requests of xDS


def _names(count: int) -> list[str]:
    return [f"no-such-cluster-{at}" for at in range(count)]


def ask_once(target: Target, where: str, body: bytes, seconds: float = 5.0) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(where), windows((0, 1)))
        # Whole frames, between which answers to the server's have their place.
        for at in range(0, len(message := data(body)), 10 * (16384 + 9)):
            if not foe.send(message[at : at + 10 * (16384 + 9)]):
                break
            foe.look(0.001)
        foe.wait_for("status|GOAWAY|RST|response", seconds)
        return foe.outcome(0.0)


@attack("names: 100,000 subscribed to", "status 3")
def names_subscribed(target: Target) -> str:
    return ask_once(target, DELTA, delta(resource_names_subscribe=_names(100_000)))


@attack("names: 100,000 unsubscribed from", "status 3")
def names_unsubscribed(target: Target) -> str:
    return ask_once(target, DELTA, delta(resource_names_unsubscribe=_names(100_000)))


@attack("names: 100,000 in SotW", "status 3")
def names_in_sotw(target: Target) -> str:
    return ask_once(target, SOTW, sotw(resource_names=_names(100_000)))


@attack("names: 100,000 held at the start", "open", "status 8")
def names_held(target: Target) -> str:
    held = dict.fromkeys(_names(100_000), "v" * 32)
    return ask_once(target, DELTA, delta(resource_names_subscribe=["*"], initial_resource_versions=held))


@attack("names: 15 million of no letter", "status 3")
def names_of_nothing(target: Target) -> str:
    return ask_once(target, DELTA, delta() + b"\x1a\x00" * 15_000_000, 20.0)


@attack("names: ever more of them", "status 3")
def names_without_end(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((0, 1)))
        for turn in range(100):
            names = [f"{turn}-{at}" * 20 for at in range(2000)]
            if not foe.send(data(delta(resource_names_subscribe=names))):
                break
            foe.look(0.01)
            if any(said.startswith("status") for said in foe.said):
                break
        return foe.outcome(0.0)


@attack("names: types by the thousand", "status 3")
def many_types(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), *(data(delta(type_url=f"type.googleapis.com/t{at}")) for at in range(2000)))
        foe.wait_for("status")
        return foe.outcome(0.0)


@attack("names: long type URLs", "status 3")
def long_types(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request())
        for at in range(64):
            if foe.target.left_s == 0 or not foe.send(data(delta(type_url=f"{at}" + "t" * 1_000_000))):
                break
            foe.look(0.005)
            if any(said.startswith("status") for said in foe.said):
                break
        return foe.outcome(0.5)


_BAD = b"\xff\xfe\xc0\x80"
INVALID_UTF8: dict[str, tuple[str, bytes]] = {
    "delta type_url": (DELTA, field(2, _BAD)),
    "delta node id": (DELTA, field(1, field(1, _BAD))),
    "delta node cluster": (DELTA, field(1, field(2, _BAD))),
    "delta node metadata key": (DELTA, field(1, field(3, field(1, field(1, _BAD))))),
    "delta node metadata value": (DELTA, field(1, field(3, field(1, field(1, b"k") + field(2, field(3, _BAD)))))),
    "delta subscribe": (DELTA, field(3, _BAD)),
    "delta unsubscribe": (DELTA, field(4, _BAD)),
    "delta initial version": (DELTA, field(5, field(1, b"n") + field(2, _BAD))),
    "delta initial name": (DELTA, field(5, field(1, _BAD) + field(2, b"v"))),
    "delta nonce": (DELTA, field(6, _BAD)),
    "delta error": (DELTA, field(7, field(2, _BAD))),
    "SotW version": (SOTW, field(1, _BAD)),
    "SotW node id": (SOTW, field(2, field(1, _BAD))),
    "SotW name": (SOTW, field(3, _BAD)),
    "SotW type_url": (SOTW, field(4, _BAD)),
    "SotW nonce": (SOTW, field(5, _BAD)),
    "SotW error": (SOTW, field(6, field(2, _BAD))),
}


@attack("content: invalid UTF-8 in every string", "status 3")
def invalid_utf8(target: Target) -> str:
    for where, body in INVALID_UTF8.values():
        outcome = ask_once(target, where, body)
        if outcome != "status 3":
            return outcome
    return "status 3"


@attack("content: structures within structures", "status 3")
def deep(target: Target) -> str:
    value = field(1, b"")
    for _ in range(5000):
        value = field(1, field(1, b"k") + field(2, field(5, value)))
    return ask_once(target, DELTA, delta() + field(1, field(3, value)))


@attack("content: garbage", "status 3")
def garbage(target: Target) -> str:
    return ask_once(target, DELTA, random.Random(1).randbytes(100_000))


@attack("content: a node of 8 MB", "status 3")
def large_node(target: Target) -> str:
    # A list of a million and a half nulls.
    values = field(1, b"\x08\x00") * 1_500_000
    metadata = field(1, field(1, b"k") + field(2, field(6, values)))
    return ask_once(target, DELTA, delta() + field(1, field(3, metadata)))


@attack("content: a refusal in 8 MB of words", "status 3")
def long_refusal(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((0, 1)), data(delta()))
        foe.wait_for("response")
        foe.send(data(delta(response_nonce="1", error="no\n" * 2_700_000)))
        foe.look(0.5)
        return foe.outcome(0.0)


# ---- Loops without an end


@attack("loop: the same name subscribed to again and again", "open", CALM)
def resubscribe(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((0, 1)), data(delta()))
        again = data(delta(resource_names_subscribe=["c"]))
        return pour(foe, lambda _: again, batch=3000)


@attack("loop: refuses all and asks again", "open")
def refuse_and_ask(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((0, 1)), data(delta()))
        nonce = 0
        while foe.target.left_s > 0 and foe.wait_for("response"):
            foe.said.remove("response")
            nonce += 1
            body = delta(response_nonce=str(nonce), error="no", resource_names_subscribe=["c"])
            if not foe.send(data(body)):
                break
        return foe.outcome(0.0)


@attack("loop: nonces of long ago", "open", CALM)
def stale_nonces(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(SOTW), windows((0, 1)), data(sotw()))
        stale = data(sotw(response_nonce="0", version_info="old", resource_names=["c", "d"]))
        return pour(foe, lambda _: stale, batch=3000)
