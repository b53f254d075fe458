"""Each benchmark's case is a correctness test too: the core's rows are the naive twin's, at every size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench import cases
from tests._core.worlds import rows_of
from tests.oracles import matching_naive as naive

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet

# The twin takes seconds for a row of the largest, so it is asked for a sample of the rows there.
SAMPLES = {"1k": 1, "10k": 40, "50k": 1_000}


@pytest.mark.parametrize("size", cases.SIZES)
@pytest.mark.parametrize("shape", [cases.realistic, cases.uniform], ids=["realistic", "uniform"])
def test_rows_are_the_twin_s(shape: Callable[[int, int], cases.Case], size: str) -> None:
    case = shape(*cases.SIZES[size])
    selectors = SelectorSet((id, TagSelector(match)) for id, match in enumerate(case.selectors))
    index = TagIndex((id, TagSet(tags)) for id, tags in enumerate(case.dataplanes))
    found = index.match_all(selectors)
    assert found.selector_ids.tolist() == list(range(len(case.selectors)))
    dataplanes = {id: [tags] for id, tags in enumerate(case.dataplanes)}
    for id in range(0, len(case.selectors), SAMPLES[size]):
        row = found.ids[found.offsets[id] : found.offsets[id + 1]]
        assert row.tolist() == naive.match_index(case.selectors[id], dataplanes)
    entries = list(enumerate(case.selectors))
    for id in range(0, len(case.dataplanes), SAMPLES[size] * 5):
        tags = case.dataplanes[id]
        assert selectors.match(TagSet(tags)) == naive.match_set(entries, [tags])


def test_an_index_that_grew_and_one_that_was_built_answer_alike() -> None:
    case = cases.realistic(*cases.SIZES["1k"])
    selectors = SelectorSet((id, TagSelector(match)) for id, match in enumerate(case.selectors))
    built = TagIndex((id, TagSet(tags)) for id, tags in enumerate(case.dataplanes))
    grown = TagIndex()
    for id, tags in reversed(list(enumerate(case.dataplanes))):
        grown.add(id, TagSet({"kuma.io/service": "before"}))
        grown.update(id, TagSet(tags))
    assert rows_of(built.match_all(selectors)) == rows_of(grown.match_all(selectors))
