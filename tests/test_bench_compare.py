"""Ratios of two revisions: taken within each round, with their spread, in the order in which they were measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench import compare
from bench.compare import ROOT, Ratio, commit_of, measured, ratios, table


def test_a_revision_is_a_commit_or_nothing() -> None:
    assert commit_of("HEAD") == commit_of("HEAD^0")
    assert commit_of("no-such-revision") is None
    assert commit_of("--all") is None


def test_a_revision_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", "no-such-revision"])
    with pytest.raises(SystemExit, match="2"):
        compare.main()
    assert "git knows no revision 'no-such-revision'" in capsys.readouterr().err


def test_ratios_are_within_a_round() -> None:
    # In the second round the machine was twice as slow, for both.
    pairs = [({"b": 10.0, "a": 1.0}, {"b": 5.0, "a": 1.0}), ({"b": 20.0, "a": 2.0}, {"b": 12.0, "a": 2.0})]
    assert ratios(pairs) == [Ratio("b", 15.0, 0.55, 0.5, 0.6), Ratio("a", 1.5, 1.0, 1.0, 1.0)]


def test_a_kind_that_one_of_them_does_not_know_is_left_out() -> None:
    assert [ratio.kind for ratio in ratios([({"a": 1.0, "old": 1.0}, {"a": 2.0, "new": 1.0})])] == ["a"]


def test_the_table_names_the_spread() -> None:
    shown = table([Ratio("an endpoint", 1.25, 0.5, 0.45, 0.61)], "main", 1_000)
    assert shown.splitlines()[-1] == "| an endpoint | 1.25 | 0.50 | 0.45 to 0.61 |"


def test_a_tree_is_measured_by_its_own_package() -> None:
    costs = measured(Path(ROOT), 50)
    assert {"load", "an endpoint", "a policy for all, with its streams"} <= costs.keys()
    assert all(cost > 0 for cost in costs.values())
