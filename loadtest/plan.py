"""What is to be played, and against whom: the one thing that all processes of a load test know.

In: a JSON file. Out: a frozen value. Never: defaults; those are the command's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    scenario: str
    users: int
    """How many Envoys, and how many dataplanes the mesh has."""
    workers: int
    """How many processes are these Envoys."""
    seconds: float
    """How long the scenario makes changes."""
    rate: float
    """Changes a second, for scenarios that have a rate."""
    api: str
    diagnostics: str
    dp_host: str
    dp_port: int
    directory: str
    """Where the process that plays the scenario finds the control plane's process id, and leaves what came out."""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    """Files of TLS: whom Envoys trust, and what they show; empty for plaintext, or where they show nothing."""
    keeps_page: bool = False
    """Whether locust's page stays when the scenario is over."""

    def save(self, path: Path) -> None:
        """Write it down."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def pid_file(self) -> Path:
        """Holds the control plane's process id, which another start changes."""
        return Path(self.directory) / "control-plane.pid"

    @property
    def profiler_file(self) -> Path:
        """Holds the process id of who samples the first control plane; not there where nobody does."""
        return Path(self.directory) / "profiler.pid"

    @property
    def outcome_file(self) -> Path:
        """Where the process that plays the scenario leaves what came out."""
        return Path(self.directory) / "outcome.json"
