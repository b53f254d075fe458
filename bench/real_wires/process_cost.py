"""What another process has cost: processor seconds and memory, read from /proc.

In: a process id. Out: seconds with the kernel's nanoseconds behind them, so that an idle process can be told from one
that ticks. Never: wall clock.
"""

from __future__ import annotations

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor seconds of all threads that there are now, user and system together."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def switches(pid: int) -> int:
    """How often its threads have given up the processor by themselves: how often they were woken."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in (thread / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def resident_bytes(pid: int) -> int:
    """Memory that it holds now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
