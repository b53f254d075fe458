"""`python -m bench.instances PART`: several instances, or workers, on a PostgreSQL of their own, under load.

A summary is printed, and all figures are written as JSON where an output is named; `bench.instances.report` makes
tables of that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from bench import ending
from bench.document import machine, origin
from bench.flags import count, positive
from bench.instances import kills, outages, report, upgrade, workers
from bench.instances.cable import Cable
from bench.instances.crew import Crew
from tests.postgresql import Server, running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instances", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--size", type=count, default=2_000, help="dataplanes, each with its Envoy")
    parser.add_argument("--rate", type=positive, default=100.0, help="changes a second")
    parser.add_argument("--kills", type=count, default=20)
    parser.add_argument("--seconds", type=positive, default=60.0, help="of each outage")
    parser.add_argument("--rounds", type=count, default=7, help="of pushes to all")
    parser.add_argument("--base", default="HEAD~1", help="the revision that is upgraded from, or `schema`")
    parser.add_argument("--output", type=Path, help="the figures as JSON go here")
    arguments = parser.parse_args()
    command = " ".join(["python -m bench.instances", *sys.argv[1:]]).partition(" --output")[0]
    before = machine()
    began = time.monotonic()
    with ending.early(), running() as server, tempfile.TemporaryDirectory() as directory:
        figures = uvloop.run(PARTS[arguments.part](server, Path(directory), arguments))
    document = {"part": arguments.part, **origin(command, before), "figures": figures}
    document["seconds"] = round(time.monotonic() - began, 1)
    sys.stdout.write(report.text(document))
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


async def _kills(server: Server, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    crew = Crew(directory, server.new_store(), size=arguments.size, rate=arguments.rate)
    return await kills.play(crew, kills=arguments.kills)


async def _outages(server: Server, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    async with Cable(server.port).laid() as cable:
        url = server.new_store().replace(f":{server.port}/", f":{cable.port}/")
        crew = Crew(directory, url, size=arguments.size, rate=arguments.rate)
        return await outages.play(crew, server, cable, seconds=arguments.seconds)


async def _workers(server: Server, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    return await workers.play(server, directory, streams=arguments.size, rounds=arguments.rounds)


async def _upgrade(server: Server, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    crew = Crew(directory, server.new_store(), size=arguments.size, rate=arguments.rate)
    return await upgrade.play(crew, arguments.base, directory / "older")


PARTS = {"kills": _kills, "outages": _outages, "workers": _workers, "upgrade": _upgrade}

if __name__ == "__main__":
    main()
