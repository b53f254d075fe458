"""Which proxies are let in, and how long: judged when they come, and again when what they were judged by changes.

In: tokens, names and tags of dataplanes; changes of keys and of dataplanes. Out: a verdict; streams that are to end.
Never: gRPC, requests; a token that is kept, shown or logged; a timer for each stream.

A proxy that was let in is asked to leave when its token expires, is revoked or loses its key, and when its dataplane's
tags become others than the token allows. Nobody polls: keys and dataplanes come as changes, the next expiry is a timer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kumafast.errors import CompactedError
from kumafast.identity.token_keys import TokenKeys
from kumafast.identity.tokens import DataplaneClaims, TokenError, TokenMismatchError, Verified, bearer
from kumafast.resources import Dataplane
from kumafast.store import Change, Store

_LOG = logging.getLogger(__name__)

NO_TOKEN: Final = (
    "a dataplane token is needed here: `kumafast generate dataplane-token` makes one, "
    "`kumafast dataplane run --token-file` sends it"
)
_SLICE_S: Final = 0.005
# The clock of the tokens can be set; the one of the timer cannot.
_SLEEP_MAX_S: Final = 60.0
_SETTLED_S: Final = 1.0
"""When tags are looked at again: the picture by which a newcomer is judged is some milliseconds behind the store."""

FindDataplane = Callable[[str, str], Dataplane | None]
"""The dataplane of a mesh and name as it is now; None for one that is not registered."""


def tag_sets(dataplane: Dataplane) -> tuple[Mapping[str, str], ...]:
    """The tags of a dataplane's inbounds and of its gateway, which all must be allowed by its token."""
    of_gateway = () if dataplane.gateway is None else (dataplane.gateway.tags,)
    return (*(inbound.tags for inbound in dataplane.inbounds), *of_gateway)


class _Guest:
    """A stream that was let in."""

    __slots__ = ("end", "is_asked", "is_gone", "mesh", "name", "verified")

    def __init__(self, verified: Verified[DataplaneClaims], mesh: str, name: str, end: Callable[[str], None]) -> None:
        self.verified = verified
        self.mesh = mesh
        self.name = name
        self.end = end
        self.is_gone = False
        # Whether it waits to be judged again.
        self.is_asked = False


class ProxyAccess:
    """The door for proxies where tokens are required. Verified tokens are remembered by their digests in `keys`."""

    def __init__(
        self, keys: TokenKeys, *, find_dataplane: FindDataplane, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since 1970."""
        self._keys = keys
        self._find = find_dataplane
        self._clock = clock
        self._guests: dict[str, dict[str, set[_Guest]]] = {}
        self._count = 0
        self._asked: deque[_Guest] = deque()
        # When each guest is judged again in any case; those that have gone are left out when their time comes.
        self._due: list[tuple[float, int, _Guest]] = []
        self._serial = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._slice: asyncio.Handle | None = None
        self.judged_again = 0
        """How often somebody who had been let in was judged again."""
        keys.tell_changes(self._rejudge_mesh)

    def __len__(self) -> int:
        """How many streams are in."""
        return self._count

    # Who comes in.

    def verify(self, authorization: str, *, mesh: str, name: str) -> Verified[DataplaneClaims]:
        """The good token of a dataplane, whose tags are not looked at yet.

        Raises `TokenError` for a token that is not good, `TokenMismatchError` for that of another dataplane.
        """
        token = bearer(authorization)
        if not token:
            raise TokenError(NO_TOKEN)
        verified = self._keys.examine_dataplane(token, mesh=mesh)
        _fit(verified.claims, mesh, name, None)
        return verified

    def verify_for(self, verified: Verified[DataplaneClaims], dataplane: Dataplane) -> None:
        """Raise `TokenMismatchError` where a token is not for a dataplane with these tags, or not for the one that has
        that name now: who holds a token for certain tags must not take the place of a dataplane with others.
        """
        _fit(verified.claims, dataplane.mesh, dataplane.name, tag_sets(dataplane))
        present = None if verified.claims.name else self._find(dataplane.mesh, dataplane.name)
        if present is not None:
            _fit(verified.claims, dataplane.mesh, dataplane.name, tag_sets(present))

    def admit(self, authorization: str, *, mesh: str, name: str, end: Callable[[str], None]) -> Callable[[], None]:
        """Let a stream in; what is returned is called when it has gone. Raises `TokenError`.

        `end` ends the stream, with the reason; it may be called at any time until then, once.
        """
        verified = self.verify(authorization, mesh=mesh, name=name)
        guest = _Guest(verified, mesh, name, end)
        self._check(guest, self._find(mesh, name))
        self._guests.setdefault(mesh, {}).setdefault(name, set()).add(guest)
        self._count += 1
        due = verified.expires
        if verified.claims.tags:
            due = min(due, self._clock() + _SETTLED_S)
        self._schedule(guest, due)

        def leave() -> None:
            self._forget(guest)

        return leave

    def _check(self, guest: _Guest, dataplane: Dataplane | None) -> None:
        """Raise `TokenError` where a guest may not stay."""
        guest.verified.check(self._keys.dataplane_keys(guest.mesh), now=self._clock())
        claims = guest.verified.claims
        if not claims.tags:
            return
        if dataplane is None:
            raise TokenMismatchError(
                f"the token is for certain tags, and no dataplane {guest.name} is registered in mesh {guest.mesh}"
            )
        _fit(claims, guest.mesh, guest.name, tag_sets(dataplane))

    def _forget(self, guest: _Guest) -> None:
        if guest.is_gone:
            return
        guest.is_gone = True
        # The heap may know it for long; its stream is not kept for that.
        guest.end = _do_nothing
        self._count -= 1
        by_name = self._guests[guest.mesh]
        by_name[guest.name].discard(guest)
        if not by_name[guest.name]:
            del by_name[guest.name]
        if not by_name:
            del self._guests[guest.mesh]
        # Those that have gone make at most half of the heap.
        if len(self._due) > 64 and len(self._due) > 2 * self._count:
            self._due = [entry for entry in self._due if not entry[2].is_gone]
            heapq.heapify(self._due)

    # Who may stay.

    async def follow(self, store: Store, *, after: int) -> None:
        """Judge those again whose dataplanes change, until cancelled."""
        while True:
            try:
                async for commit in store.watch(after=after):
                    after = commit.revision
                    self._take(commit.changes)
                return
            except CompactedError:
                after = await store.revision()
                for mesh in tuple(self._guests):
                    self._rejudge_mesh(mesh)

    def _take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.key.type != Dataplane.type.name:
                continue
            resource = None if change.stored is None else change.stored.resource
            dataplane = resource if isinstance(resource, Dataplane) else None
            for guest in tuple(self._guests.get(change.key.mesh, {}).get(change.key.name, ())):
                # One that is taken away has nothing to be given; its stream waits for it to come back.
                if dataplane is not None:
                    self._judge_again(guest, dataplane)

    def _rejudge_mesh(self, mesh: str) -> None:
        """Judge all of a mesh again, in slices between which everything else has its turn."""
        for guests in self._guests.get(mesh, {}).values():
            self._ask(guests)

    def _ask(self, guests: Iterable[_Guest]) -> None:
        for guest in guests:
            if not guest.is_asked:
                guest.is_asked = True
                self._asked.append(guest)
        if self._asked and self._slice is None:
            self._slice = asyncio.get_running_loop().call_soon(self._judge_slice)

    def _judge_slice(self) -> None:
        self._slice = None
        began = time.monotonic()
        while self._asked and time.monotonic() - began < _SLICE_S:
            guest = self._asked.popleft()
            guest.is_asked = False
            self._judge_again(guest, self._find(guest.mesh, guest.name))
        self._ask(())

    def _judge_again(self, guest: _Guest, dataplane: Dataplane | None) -> None:
        if guest.is_gone:
            return
        self.judged_again += 1
        try:
            if dataplane is None:
                guest.verified.check(self._keys.dataplane_keys(guest.mesh), now=self._clock())
            else:
                self._check(guest, dataplane)
        except TokenError as error:
            _LOG.info("%s.%s has to leave: %s", guest.mesh, guest.name, error)
            end = guest.end
            self._forget(guest)
            end(str(error))

    # When a token ends.

    def _schedule(self, guest: _Guest, due: float) -> None:
        is_next = not self._due or due < self._due[0][0]
        heapq.heappush(self._due, (due, next(self._serial), guest))
        if is_next:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            wait_s = min(max(self._due[0][0] - self._clock(), 0.0), _SLEEP_MAX_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._end_due)

    def _end_due(self) -> None:
        now = self._clock()
        due: list[_Guest] = []
        while self._due and (self._due[0][0] <= now or self._due[0][2].is_gone):
            _, _, guest = heapq.heappop(self._due)
            if guest.is_gone:
                continue
            due.append(guest)
            if guest.verified.expires > now:
                heapq.heappush(self._due, (guest.verified.expires, next(self._serial), guest))
        self._ask(due)
        self._set_timer()

    def stop(self) -> None:
        """Judge nobody any more."""
        for handle in (self._timer, self._slice):
            if handle is not None:
                handle.cancel()
        self._timer = self._slice = None
        self._due.clear()
        self._asked.clear()


def _do_nothing(why: str) -> None:
    pass


def _fit(claims: DataplaneClaims, mesh: str, name: str, tags: Iterable[Mapping[str, str]] | None) -> None:
    why = claims.mismatch(mesh=mesh, name=name, tag_sets=tags)
    if why is not None:
        raise TokenMismatchError(why)
