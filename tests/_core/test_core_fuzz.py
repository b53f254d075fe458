"""A seeded byte fuzzer on the bindings: any program of calls with any arguments ends in a value or a Python exception.

The bytes are the program. KUMAFAST_FUZZ_SECONDS makes it long (default 2), KUMAFAST_FUZZ_SEED another one; a crash
names its seed in the last line of output when run with -s. Run it under the sanitizers for what it is worth most.
"""

from __future__ import annotations

import os
import time
from random import Random
from typing import Any

import pytest

from kumafast import _core

SECONDS = float(os.environ.get("KUMAFAST_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("KUMAFAST_FUZZ_SEED", "1"))

# What the border promises; anything else that comes out is a finding.
PROMISED = (TypeError, ValueError, OverflowError, KeyError, AttributeError, BufferError, LookupError)
NAMES = ("IdSet", "Matches", "SelectorSet", "SnapshotDigest", "TagIndex", "TagSelector", "TagSet")
SPECIAL = ("__len__", "__contains__", "__eq__", "__hash__", "__reduce__", "__sizeof__", "__init__")
FUNCTIONS = ("digest", "changed_snapshots", "diff_versions")
NUMBERS = (0, 1, 2, 63, 64, 65, 4095, 65_536, 2**31, 2**32 - 1, 2**32, 2**64, -1, -(2**63))


class Program:
    """Reads its own decisions from bytes; out of bytes, it ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.core: list[Any] = [_core.TagIndex(), _core.SelectorSet(), _core.SnapshotDigest()]
        self.pool: list[Any] = [None, {}, [], "", "*", *self.core]
        self.returned = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def text(self) -> str:
        kind = self.byte()
        if kind < 160:
            return "abcdefgh"[kind % 8]
        if kind < 200:
            return "*" if kind % 2 else ""
        raw = self.data[self.at : self.at + kind % 40]
        self.at += len(raw)
        return raw.decode("utf-8", errors="surrogateescape" if kind % 2 else "replace")

    def value(self, depth: int = 0) -> Any:
        kind = self.byte() % (12 if depth < 3 else 4)
        if kind == 0:
            return NUMBERS[self.byte() % len(NUMBERS)] if self.byte() < 80 else self.byte() % 100
        if kind in (1, 4):
            return self.pool[self.byte() % len(self.pool)]
        if kind == 2:
            return self.text()
        if kind == 3:
            return bytes(self.data[self.at : self.at + (16 if self.byte() < 200 else self.byte() % 300)])
        if kind in (5, 6, 7):
            return {self.text(): self.text() for _ in range(self.byte() % 6)}
        if kind == 8:
            return {self.text(): self.value(depth + 1) for _ in range(self.byte() % 4)}
        if kind == 9:
            return [self.value(depth + 1) for _ in range(self.byte() % 5)]
        if kind == 10:
            return [(self.byte() % 64, self.pool[self.byte() % len(self.pool)]) for _ in range(self.byte() % 8)]
        return (self.value(depth + 1), self.value(depth + 1))

    def call(self) -> Any:
        kind = self.byte() % 10
        if kind < 3:
            return getattr(_core, NAMES[self.byte() % len(NAMES)])(*[self.value() for _ in range(self.byte() % 2)])
        if kind == 3:
            return getattr(_core, FUNCTIONS[self.byte() % 3])(*[self.value() for _ in range(1 + self.byte() % 2)])
        target = self.core[self.byte() % len(self.core)]
        if kind == 4:
            return (repr(target), hash(target), target == self.value(), list(iter(target))[:5])
        methods = [name for name in dir(target) if not name.startswith("__") or name in SPECIAL]
        method = getattr(target, methods[self.byte() % len(methods)])
        return method(*[self.value() for _ in range(self.byte() % 4)]) if callable(method) else method

    def run(self) -> None:
        # Something to match with; most programs would else spend themselves on refused arguments.
        for make in (_core.TagSet, _core.TagSelector) * 4:
            tags = {"abcdefgh"[self.byte() % 8]: "ab*"[self.byte() % 3] for _ in range(self.byte() % 4)}
            self.core.append(make(tags))
        self.pool += self.core[3:]
        while self.at < len(self.data):
            try:
                made = self.call()
            except PROMISED:
                continue
            self.returned += 1
            if type(made).__module__.startswith("kumafast."):
                self.core.append(made)
                self.pool.append(made)


def test_any_program_of_calls_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    end = time.monotonic() + SECONDS
    seed = SEED
    returned = 0
    while time.monotonic() < end:
        with capsys.disabled():
            if SECONDS > 10 and seed % 10_000 == 0:
                print(f"fuzz: seed {seed}")  # noqa: T201
        program = Program(Random(seed).randbytes(1_000))
        program.run()
        returned += program.returned
        seed += 1
    assert returned > seed - SEED, "a fuzzer whose calls are all refused finds nothing"
