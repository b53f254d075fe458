"""grpcio comes with the messages that Envoy is told (`xds-protos` needs it); nothing of kumafast loads it."""

from __future__ import annotations

import subprocess
import sys

_IMPORT_ALL = """
import importlib, pkgutil, sys, kumafast
for module in pkgutil.walk_packages(kumafast.__path__, "kumafast."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert "kumafast.control_plane" in sys.modules
print(sorted(name for name in sys.modules if name.partition(".")[0] == "grpc"))
"""


def test_no_module_loads_grpc() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.strip() == "[]"
