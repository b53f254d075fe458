"""Conversations between a client and a session, as text: what is said and what is answered, rule by rule.

Each file of `conversations/` opens with the rules that it shows. Then, one a line:

    stream sotw|delta [TYPE]          a new stream; TYPE for a service of one type; snapshot and history stay
    snapshot TYPE NAME=V … | TYPE …   what there is from now on; `snapshot none` for an unknown node
    > TYPE names=A,B version=V        a SotW request; version `current` is that of the snapshot; `names=` says nothing
    > TYPE subscribe=A unsubscribe=B have=A:V       a delta request; `have` are the initial resource versions
      … nonce=N                       of either; the last one of the type by default, `none` for an absent one
    > TYPE ack | nack [names=A,B]     answers the last response of the type; `nack error=` without a message
    ! TEXT                            the request above ends the stream with an error that says so
    < TYPE NAME=V … removed=A,B       the next response; nothing after TYPE for an empty one; `version=current`
    = silence | holding | synced | behind     nothing to send; something waits; all taken; not all taken
    impatient                         what waits is sent all the same
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kumafast.snapshot import Snapshot, XdsResource
from kumafast.snapshot import resource as types
from kumafast.stream.messages import Acknowledged, ProtocolError, Rejected, Request, Response, Variant
from kumafast.stream.session import Session

CONVERSATIONS = Path(__file__).parent / "conversations"
FILES = sorted(CONVERSATIONS.glob("*.txt"))
TYPES = {
    "cds": types.CLUSTER,
    "eds": types.ENDPOINT,
    "leds": types.LB_ENDPOINT,
    "lds": types.LISTENER,
    "rds": types.ROUTE,
    "srds": types.SCOPED_ROUTE,
    "vhds": types.VIRTUAL_HOST,
    "sds": types.SECRET,
    "rtds": types.RUNTIME,
    "ecds": types.EXTENSION,
    "other": "type.googleapis.com/somebody.elses.Type",
}


class Conversation:
    """Plays one file's lines against sessions."""

    def __init__(self) -> None:
        self.session = Session(Variant.DELTA)
        self.variant = Variant.DELTA
        self.snapshot: Snapshot | None = None
        self.nonces: dict[str, str] = {}
        self.all_nonces: list[str] = []
        self.names: dict[str, list[str]] = {}
        self.is_patient = True
        self.error: ProtocolError | None = None

    def play(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        words = rest.split(" ") if rest else []
        if verb != "!":
            assert self.error is None, f"an error that nobody expected: {self.error}"
        match verb:
            case "stream":
                self.open(*words)
            case "snapshot":
                self.snapshot = None if words == ["none"] else _snapshot(rest)
            case ">":
                self.say(TYPES.get(words[0], words[0].strip('"')), words[1:])
            case "!":
                assert self.error is not None, "the request was taken"
                assert rest in str(self.error)
                self.error = None
            case "<":
                self.hear(TYPES[words[0]], words[1:])
            case "=":
                self.observe(rest)
            case "impatient":
                self.is_patient = False
            case _:
                raise AssertionError(f"not a line of a conversation: {line}")

    def open(self, variant: str, kind: str | None = None) -> None:
        self.variant = Variant(variant)
        self.session = Session(self.variant, TYPES[kind] if kind else None)
        self.nonces, self.all_nonces = {}, []

    def say(self, type_url: str, words: list[str]) -> None:
        options = {word.partition("=")[0]: word.partition("=")[2] for word in words}
        nonce = options.get("nonce", self.nonces.get(type_url, ""))
        is_answer = "ack" in options or "nack" in options
        if "names" in options:
            self.names[type_url] = _split(options["names"])
        version = options.get("version", "")
        if version == "current":
            assert self.snapshot is not None
            version = self.snapshot.version(type_url)
        request = Request(
            type_url=type_url,
            names=self.names.get(type_url, []),
            version=version,
            subscribe=_split(options.get("subscribe", "")),
            unsubscribe=_split(options.get("unsubscribe", "")),
            initial_versions=dict(pair.split(":", 1) for pair in _split(options.get("have", ""))),
            nonce="" if nonce == "none" else nonce,
            error=options.get("error", "it is bad") if "nack" in options else None,
        )
        try:
            events = self.session.receive(request)
        except ProtocolError as error:
            self.error = error
            return
        assert len(events) == int(is_answer), f"{events} for {words}"
        if is_answer:
            assert isinstance(events[0], Rejected if "nack" in options else Acknowledged)

    def next(self) -> Response | None:
        response = self.session.respond(self.snapshot, is_patient=self.is_patient)
        if response is None:
            self.is_patient = True
        return response

    def hear(self, type_url: str, words: list[str]) -> None:
        response = self.next()
        assert response is not None, "silence"
        assert response.nonce
        assert response.nonce not in self.all_nonces
        self.all_nonces.append(response.nonce)
        self.nonces[type_url] = response.nonce
        options = dict(word.split("=", 1) for word in words)
        removed = _split(options.pop("removed", ""))
        version = options.pop("version", None)
        assert response.type_url == type_url
        assert [(item.name, item.version) for item in response.resources] == list(options.items())
        assert sorted(response.removed) == removed
        if version is not None:
            assert self.snapshot is not None
            assert response.version == (self.snapshot.version(type_url) if version == "current" else version)

    def observe(self, state: str) -> None:
        if state in ("silence", "holding"):
            response = self.next()
            assert response is None
            assert self.session.is_holding == (state == "holding")
        else:
            assert self.snapshot is not None
            assert self.session.is_synced(self.snapshot) == (state == "synced")
            assert state in ("synced", "behind")


def _split(text: str) -> list[str]:
    return text.split(",") if text else []


def _snapshot(text: str) -> Snapshot:
    resources = []
    for part in text.split(" | ") if text else []:
        kind, *items = part.split(" ")
        for item in items:
            name, _, version = item.partition("=")
            resources.append(XdsResource(TYPES[kind], name, version.encode(), version=version))
    return Snapshot.of(*resources)


def _rules_of(path: Path) -> list[int]:
    heading = path.read_text(encoding="utf-8").splitlines()[0]
    assert heading.startswith("# Rule"), f"{path.name} does not say which rules it shows"
    return [int(number) for number in re.findall(r"\d+", heading.partition(".")[0])]


def _play(path: Path, lines: list[str]) -> None:
    conversation = Conversation()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            conversation.play(line.rstrip())
        except AssertionError as error:
            raise AssertionError(f"{path.name}:{number}: {line}: {error}") from error
    assert conversation.error is None
    assert conversation.next() is None, f"{path.name}: something is left to say at the end"


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=f"rule-{rule}-{path.stem}") for path in FILES for rule in _rules_of(path)]
)
def test_conversation(path: Path) -> None:
    """Each conversation once for each rule that it shows: `-k rule-23-` plays all that there is about one."""
    _play(path, path.read_text(encoding="utf-8").splitlines())


def _only_type(text: str) -> str | None:
    """The type of a conversation in which just one is asked for, and aggregated streams only."""
    types_said = set(re.findall(r"^> (\S+)", text, re.MULTILINE))
    is_aggregated = not re.search(r"^stream \S+ \S", text, re.MULTILINE)
    return types_said.pop() if is_aggregated and len(types_said) == 1 and types_said <= TYPES.keys() else None


_OF_ONE_TYPE = [(path, kind) for path in FILES if (kind := _only_type(path.read_text(encoding="utf-8"))) is not None]


@pytest.mark.parametrize(("path", "kind"), _OF_ONE_TYPE, ids=[path.stem for path, _ in _OF_ONE_TYPE])
def test_conversation_is_the_same_on_the_service_of_its_type(path: Path, kind: str) -> None:
    """A type does not behave differently on a stream of its own, where requests may even leave it out (rules 1, 3)."""
    text = re.sub(r"^(stream \S+)$", rf"\1 {kind}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    _play(path, text.splitlines())


def test_most_conversations_are_of_one_type() -> None:
    """The test above would prove nothing if it found none of them."""
    assert len(_OF_ONE_TYPE) > len(FILES) / 2


ROOT = Path(__file__).parents[1]


def test_every_rule_is_shown() -> None:
    """Each rule of the protocol's checklist is named by a conversation or by the docstring of a test."""
    shown = {rule for path in FILES for rule in _rules_of(path)}
    for folder in ("stream", "snapshot", "clients"):
        for path in (ROOT / folder).glob("test_*.py"):
            for numbers in re.findall(r"\(rules? ([\d, ]+)\)\.(?:\"\"\"|\n)", path.read_text(encoding="utf-8")):
                shown |= {int(number) for number in numbers.split(",")}
    assert sorted(set(range(1, 57)) - shown) == []
