"""The examples in docstrings are run: what a reader copies works."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings

import pytest

import kumafast

# The compiled modules have their own check, which reads the stubs too.
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(kumafast.__path__, "kumafast.")
    if not found.name.startswith("kumafast._core") and not found.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    with warnings.catch_warnings():
        # A module of generated messages may warn when it is first loaded; that is no example's affair.
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


@pytest.mark.parametrize(
    "name",
    ["kumafast.snapshot.cache", "kumafast.snapshot.snapshot", "kumafast.stream.server", "kumafast.insights.clients"],
)
def test_the_server_for_others_has_examples(name: str) -> None:
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    assert sum(len(each.examples) for each in found) > 0
