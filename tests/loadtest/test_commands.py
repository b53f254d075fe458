"""What the commands of load tests say to a value that is none, and what they make of a small one."""

from __future__ import annotations

import argparse
import doctest
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import flags
from loadtest.__main__ import main as loadtest
from loadtest.many import __main__ as many
from loadtest.outcome import Outcome
from loadtest.plan import Plan
from loadtest.real_envoys import main as real_envoys

from loadtest import __main__ as command
from loadtest import control_plane


def test_examples_run() -> None:
    failed, attempted = doctest.testmod(flags)
    assert (failed, attempted > 0) == (0, True)


@pytest.mark.parametrize(
    ("main", "words", "said"),
    [
        (loadtest, "--scenario none", "argument --scenario: invalid choice: 'none'"),
        (loadtest, "--users 0", "argument --users: 0 is less than 1"),
        (loadtest, "--users 101", "argument --users: 101 is not a multiple of 50"),
        (loadtest, "--users 100 --workers 3", "--users must be a multiple of --workers"),
        (loadtest, "--workers 0", "argument --workers: 0 is less than 1"),
        (loadtest, "--seconds -1", "argument --seconds: -1 is not a number above 0"),
        (loadtest, "--minutes nan", "argument --minutes: nan is not a number above 0"),
        (loadtest, "--rate x", "argument --rate: invalid positive value: 'x'"),
        (many.main, "--streams 0", "argument --streams: 0 is less than 1"),
        (many.main, "--streams 1001", "argument --streams: 1001 is not a multiple of 50"),
        (many.main, "--streams 100 --each 3", "--streams must be a multiple of --each"),
        (many.main, "--each 0", "argument --each: 0 is less than 1"),
        (many.main, "--streams 1000 --seconds 20", "with --rate 20 that takes --seconds 5 at most"),
        (real_envoys, "--envoys 0", "argument --envoys: 0 is less than 1"),
        (real_envoys, "--envoys 4", "--envoys must be a multiple of 5"),
    ],
)
def test_a_value_that_is_none_is_named(
    main: Callable[[], None],
    words: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words.split()])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "words"), [(loadtest, "--users 500 --workers 5"), (many.main, "--streams 5000 --each 10")]
)
def test_more_connections_than_descriptors_are_refused_before_anything_is_started(
    main: Callable[[], None], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words.split()])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (600, 600))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "500 connections need as many descriptors in the control plane, and 600 are" in capsys.readouterr().err
    assert control_plane.why_no_descriptors(400) == ""


def test_locust_by_hand_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan("steady", 100, 2, 1.0, 1.0, "", "", "127.0.0.1", 1, directory=str(tmp_path))
    played = threading.Timer(0.2, Outcome(problems=["one"]).save, [plan.outcome_file])
    played.start()
    assert command._await_locust(plan, spawn_rate=300.0) == 0
    assert Outcome.load(plan.outcome_file).problems == ["one"]
    said = capsys.readouterr().out
    assert f"--plan {tmp_path}/plan.json --worker --master-host" in said
    assert f"--plan {tmp_path}/plan.json --master --expect-workers 2 --headless --users 100 --spawn-rate 300" in said


@pytest.mark.parametrize(
    ("words", "seconds", "typed"),
    [
        ("--streams 50000", 20.0, "make load-many STREAMS=50000 EACH=10"),
        ("--streams 1000", 5.0, "make load-many STREAMS=1000 EACH=10"),
        (
            "--streams 1000 --seconds 2",
            2.0,
            "python -m loadtest.many --streams 1000 --each 10 --rate 20 --seconds 2",
        ),
    ],
)
def test_a_small_number_of_streams_moves_for_as_long_as_there_are_services(
    words: str, seconds: float, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words.split()])
    asked: list[argparse.Namespace] = []

    def play(arguments: argparse.Namespace, *_: object) -> list[str]:
        asked.append(arguments)
        return []

    monkeypatch.setattr(many, "play", play)
    with pytest.raises(SystemExit, match=r"0|False"):
        many.main()
    assert asked[0].seconds == seconds
    assert many._command(asked[0]) == typed
