"""Clients of the protocol for tests: they hold what they were sent, answer as they were told to, and check the rules.

In: responses of a `Session`. Out: requests; what the client holds. Never: kumafast's own idea of what a client holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

# What is missing in a SotW response of these types stays as it is (rule 36).
PARTIAL_TYPES = frozenset({ENDPOINT, ROUTE})
BAD = "bad-"


@dataclass
class Held:
    """What a client holds of one type and what it has asked for; survives a stream."""

    resources: dict[str, str] = field(default_factory=dict)
    version: str = ""
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    is_open: bool = False
    nonce: str = ""
    pending: deque[Response] = field(default_factory=deque)
    # Names for which an answer is owed: newly asked for, in delta and SotW alike.
    owed: set[str] = field(default_factory=set)
    # Names of responses that were refused as a whole and have not come again.
    lost: set[str] = field(default_factory=set)


class ModelClient:
    """A client of an ADS stream. It refuses responses that hold a resource whose version starts with `bad-`."""

    def __init__(self, variant: Variant, *, is_hasty: bool, takes_parts: bool) -> None:
        """A hasty client answers each response at once; another one only when `answer` is called.

        One that `takes_parts` keeps the good resources of a response that it refuses, as Envoy does.
        """
        self.takes_parts = takes_parts
        self.variant = variant
        self.is_hasty = is_hasty
        self.held: dict[str, Held] = {}
        self.session = Session(variant)
        self.received: list[Response] = []

    def reconnect(self) -> None:
        """Open a new stream and ask again for all that was asked for, saying what is held."""
        self.session = Session(self.variant, unfinished=self.session.unfinished)
        self.received = []
        held, self.held = self.held, {}
        for type_url, old in held.items():
            self.held[type_url] = Held(resources=old.resources, version=old.version)
            if old.wildcard or old.names:
                self.ask(type_url, {"*"} | old.names if old.wildcard else set(old.names))

    def ask(self, type_url: str, names: set[str]) -> None:
        """Make `names` the whole subscription of a type; `*` among them asks for everything."""
        held = self.held.setdefault(type_url, Held())
        wanted, wildcard = names - {"*"}, "*" in names
        before = held.names | ({"*"} if held.wildcard else set())
        added, dropped = names - before, before - names
        held.wildcard, held.names = wildcard, wanted
        if not wildcard:
            held.resources = {name: version for name, version in held.resources.items() if name in wanted}
            held.owed &= wanted
        if self.variant is Variant.SOTW:
            self._say(Request(type_url=type_url, names=sorted(names), version=held.version, nonce=held.nonce))
        else:
            initial = dict(held.resources) if not held.is_open else {}
            held.owed |= (added - {"*"}) - initial.keys()
            if held.is_open and wildcard:
                # The wildcard may cover what was given up, so the server has to say (rule 31).
                held.owed |= dropped - {"*"}
            request = Request(
                type_url=type_url, subscribe=sorted(added), unsubscribe=sorted(dropped), initial_versions=initial
            )
            self._say(request)
        held.is_open = True

    def resubscribe(self, type_url: str, name: str) -> None:
        """Delta: ask again for a name that is held."""
        held = self.held[type_url]
        held.owed.add(name)
        self._say(Request(type_url=type_url, subscribe=[name]))

    def _say(self, request: Request) -> None:
        assert self.session.receive(request) == [], "only an answer to a response settles it"

    def hear(self, response: Response) -> None:
        """Take in a response, with the checks that hold for every one."""
        held = self.held[response.type_url]
        assert not held.pending, "at most one response in flight for a type (rule 54)"
        names = [resource.name for resource in response.resources]
        assert len(set(names)) == len(names), "a name twice (rule 40)"
        assert not set(names) & set(response.removed), "a name both sent and removed (rule 40)"
        assert response.nonce
        assert response.nonce not in [earlier.nonce for earlier in self.received], "a nonce twice (rule 8)"
        self.received.append(response)
        if not held.wildcard:
            assert set(names) <= held.names | held.owed, "unsolicited"
            assert set(response.removed) <= held.names | held.owed, "unsolicited removal"
        held.pending.append(response)
        if self.is_hasty:
            self.answer(response.type_url)

    def answer(self, type_url: str) -> bool:
        """ACK or NACK the response of a type that waits for it; False where there is none."""
        held = self.held[type_url]
        if not held.pending:
            return False
        response = held.pending.popleft()
        held.nonce = response.nonce
        is_bad = any(resource.version.startswith(BAD) for resource in response.resources)
        held.owed -= {resource.name for resource in response.resources} | set(response.removed)
        names_sent = {resource.name for resource in response.resources} | set(response.removed)
        held.lost -= names_sent
        if not is_bad or self.takes_parts:
            self._take(held, response)
        else:
            held.lost |= names_sent
        names = sorted(held.names | ({"*"} if held.wildcard else set()))
        events = self.session.receive(
            Request(
                type_url=type_url,
                names=names if self.variant is Variant.SOTW else (),
                version=held.version,
                nonce=response.nonce,
                error="refused" if is_bad else None,
            )
        )
        assert len(events) == 1
        return True

    def _take(self, held: Held, response: Response) -> None:
        sent = {resource.name: str(resource.version) for resource in response.resources}
        before = held.resources
        sent = {name: version for name, version in sent.items() if not version.startswith(BAD)}
        is_bad = len(sent) < len(response.resources)
        if not held.wildcard:
            sent = {name: version for name, version in sent.items() if name in held.names}
        if self.variant is Variant.SOTW and response.type_url not in PARTIAL_TYPES:
            kept = {name: before[name] for name in before if is_bad and name in {r.name for r in response.resources}}
            held.resources = kept | sent
        else:
            held.resources.update(sent)
        for name in response.removed:
            held.resources.pop(name, None)
        if not is_bad:
            held.version = response.version

    def wanted(self, type_url: str, snapshot: Snapshot) -> dict[str, str]:
        """What the client should end with of a type."""
        held = self.held[type_url]
        there = {name: str(resource.version) for name, resource in snapshot.resources(type_url).items()}
        return {name: version for name, version in there.items() if held.wildcard or name in held.names}

    def settle(self, snapshot: Snapshot | None, *, is_patient: bool = True) -> int:
        """Exchange responses and answers until nothing moves; returns how many responses came."""
        count = 0
        while True:
            response = self.session.respond(snapshot, is_patient=is_patient)
            if response is not None:
                self.hear(response)
                count += 1
                assert count < 200, "the two never come to rest"
                continue
            answered = [self.answer(type_url) for type_url in self.held]
            if not any(answered):
                return count


class EnvoyClient(ModelClient):
    """A client that asks as Envoy does: clusters, then their endpoints; listeners, then their routes.

    It never takes a listener or route update while a cluster that it was sent waits for its endpoints.
    """

    def __init__(self, variant: Variant, *, takes_parts: bool) -> None:
        super().__init__(variant, is_hasty=True, takes_parts=takes_parts)
        self.warming: set[str] = set()

    def start(self) -> None:
        self.ask(CLUSTER, {"*"})
        self.ask(LISTENER, {"*"})

    def hear(self, response: Response) -> None:
        before = dict(self.held[response.type_url].resources)
        if response.type_url in (LISTENER, ROUTE) and before and not self._is_bad(response):
            updates = [item.name for item in response.resources if before.get(item.name) not in (None, item.version)]
            assert not (updates and self.warming), f"{updates} lead to cold clusters {self.warming}"
        super().hear(response)
        after = self.held[response.type_url].resources
        if response.type_url == CLUSTER:
            self.warming -= before.keys() - after.keys()
            self.warming |= {name for name, version in after.items() if before.get(name) != version}
            self._follow(ENDPOINT, set(after))
        elif response.type_url == ENDPOINT:
            self.warming -= after.keys() & {resource.name for resource in response.resources}
        elif response.type_url == LISTENER:
            self._follow(ROUTE, set(after))

    def _follow(self, type_url: str, names: set[str]) -> None:
        """Ask for what the resources just taken refer to; a first request without a name would mean everything."""
        if names or (type_url in self.held and self.held[type_url].is_open):
            self.ask(type_url, names)

    @staticmethod
    def _is_bad(response: Response) -> bool:
        return any(resource.version.startswith(BAD) for resource in response.resources)
