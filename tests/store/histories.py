"""What watches saw, written down, and judges of each promise that a watch makes.

In: for each watcher its listings and the commits after them; what writers were answered. Out: every breach, in words.
Never: a store; a history can be made up to see that its judge is awake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kumafast.resources import ResourceKey
from kumafast.store import Commit, StoredResource

State = Mapping[ResourceKey, StoredResource]


@dataclass
class Span:
    """One watch: what was listed before, at which revision, and what came. `is_resumed`: it goes on where the last of
    its watcher ended, without a listing."""

    after: int
    listed: State | None = None
    commits: list[Commit] = field(default_factory=list)

    @property
    def is_resumed(self) -> bool:
        return self.listed is None

    @property
    def end(self) -> int:
        return self.commits[-1].revision if self.commits else self.after


@dataclass(frozen=True)
class Answer:
    """A write that was acknowledged: its revision, and the keys that it was to change."""

    revision: int
    keys: frozenset[ResourceKey]


@dataclass
class History:
    """All that was seen. `final` is what the store held at `revision`, when nobody wrote any more."""

    revision: int
    final: State
    answers: Sequence[Answer]
    watchers: Sequence[Sequence[Span]]

    def breaches(self) -> list[str]:
        """Every promise that was not kept."""
        found = [*self.unordered(), *self.repeated(), *self.missed(), *self.torn(), *self.not_resumed()]
        return [*found, *self.wrong_in_the_end(), *self.lost()]

    def _spans(self) -> Iterator[tuple[int, Span]]:
        for number, spans in enumerate(self.watchers):
            for span in spans:
                yield number, span

    def unordered(self) -> Iterator[str]:
        """Ordered: no commit comes after a later one."""
        for number, span in self._spans():
            revisions = [commit.revision for commit in span.commits]
            if revisions != sorted(revisions):
                yield f"ordered: watcher {number} saw {revisions}"

    def repeated(self) -> Iterator[str]:
        """Unique: no commit comes twice, nor one that was listed."""
        for number, span in self._spans():
            revisions = [span.after, *(commit.revision for commit in span.commits)]
            if len(set(revisions)) != len(revisions) or any(each <= span.after for each in revisions[1:]):
                yield f"unique: watcher {number} saw {revisions}"

    def missed(self) -> Iterator[str]:
        """Reliable: none is left out between the first and the last."""
        for number, span in self._spans():
            seen = {commit.revision for commit in span.commits}
            missing = set(range(span.after + 1, span.end + 1)) - seen
            if missing:
                yield f"reliable: watcher {number} did not see {sorted(missing)}"

    def torn(self) -> Iterator[str]:
        """Atomic: a commit is the same for all, and holds all that its write was to change."""
        first: dict[int, Commit] = {}
        for number, span in self._spans():
            for commit in span.commits:
                if first.setdefault(commit.revision, commit) != commit:
                    yield f"atomic: watcher {number} saw another commit {commit.revision} than the others"
        for answer in self.answers:
            commit_seen = first.get(answer.revision)
            if commit_seen is not None and not answer.keys <= {change.key for change in commit_seen.changes}:
                yield f"atomic: commit {answer.revision} is without a part of its write"

    def not_resumed(self) -> Iterator[str]:
        """Resumable: a watch goes on where the last one ended; a listing is of what the commits before it made."""
        for number, spans in enumerate(self.watchers):
            for before, span in pairwise(spans):
                if span.is_resumed and span.after != before.end:
                    yield f"resumable: watcher {number} was at {before.end} and went on after {span.after}"

    def wrong_in_the_end(self) -> Iterator[str]:
        """Who has seen a listing and all after it knows what is stored."""
        for number, spans in enumerate(self.watchers):
            held: dict[ResourceKey, StoredResource] = {}
            for span in spans:
                if span.listed is not None:
                    held = dict(span.listed)
                for commit in span.commits:
                    for change in commit.changes:
                        held.pop(change.key, None)
                        if change.stored is not None:
                            held[change.key] = change.stored
            if spans[-1].end != self.revision or held != dict(self.final):
                yield f"in the end: watcher {number} believes something else at {spans[-1].end} of {self.revision}"

    def lost(self) -> Iterator[str]:
        """An acknowledged write is in the store, or was written over by a later commit."""
        revisions = [answer.revision for answer in self.answers]
        if len(set(revisions)) != len(revisions):
            yield "two writes were answered with the same revision"
        for answer in self.answers:
            if answer.revision > self.revision:
                yield f"lost: the write of revision {answer.revision}"
            for key in answer.keys:
                held = self.final.get(key)
                if held is not None and held.revision < answer.revision:
                    yield f"lost: the write of revision {answer.revision} to {key}"
