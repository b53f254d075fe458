"""A short form of the fuzzers in ext/: mutated connections to the wire and to TLS, under both sanitizers.

`sanitize.sh` runs the long form: KUMAFAST_FUZZ_CONNECTIONS says how long.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kumafast._core import HAS_TLS

EXT = Path(__file__).resolve().parents[2] / "ext"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or ""
FLAGS = ("-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined")


def compile_program(name: str, directory: Path, *words: str) -> Path:
    program = directory / name
    command = [COMPILER, *FLAGS, "-o", str(program), str(EXT / f"{name}.cpp"), *words]
    subprocess.run(command, check=True, timeout=240)
    return program


@pytest.mark.slow
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="sanitize.sh has run them already, as it builds them")
@pytest.mark.parametrize(
    ("name", "words", "connections"),
    [
        ("wire_fuzz", (), 2000),
        pytest.param(
            "tls_fuzz",
            ("-DKUMAFAST_HAS_TLS", "-lssl", "-lcrypto"),
            700,
            marks=pytest.mark.skipif(not HAS_TLS, reason="built without OpenSSL"),
        ),
    ],
)
def test_mutated_connections_are_no_finding(
    name: str, words: tuple[str, ...], connections: int, tmp_path: Path
) -> None:
    program = compile_program(name, tmp_path, *words)
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
    done = subprocess.run(
        [program, str(connections), "1"], capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Some of all kinds must have happened, or nothing was tested.
    numbers = [int(number) for number in re.findall(r"\d+", done.stdout.partition("\n")[0])]
    assert numbers[0] == connections
    assert min(numbers) > 100
