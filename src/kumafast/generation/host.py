"""Where a proxy runs: what parts are made of that no other proxy has.

In: what its dataplane, its launcher and its Envoy say. Out: a value. Never: a look at the host.
"""

from __future__ import annotations

from dataclasses import dataclass

from kumafast.generation import names
from kumafast.generation.proxy import Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a proxy runs, as its dataplane, its launcher and its Envoy say; of one proxy alone.

    `labels` are what its own metrics are told apart by. Sockets and files are paths on the host.
    """

    address: str
    labels: Tags
    workdir: str
    metrics_socket: str
    config_socket: str
    metrics_certificate: tuple[str, str] | None = None
    """A certificate and its key, where the host has some for those who ask for metrics."""
    mesh: str = ""
    """Whose certificates it has; nothing where its mesh has none."""
    reuses_port: bool = True
    is_unified: bool = False
    """Whether names are those of the unified scheme."""

    def socket(self, name: str) -> str:
        """A socket of this name in the launcher's directory."""
        return names.socket_path(self.workdir, name)
