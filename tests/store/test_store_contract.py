"""The contract, held against each back end (the fixture `store`)."""

from __future__ import annotations

import pytest
from tests.store import contract

pytestmark = pytest.mark.anyio


class TestReadingAndWriting(contract.ReadingAndWriting):
    pass


class TestWritingTogether(contract.WritingTogether):
    pass


class TestRulesBetweenResources(contract.RulesBetweenResources):
    pass


class TestWatching(contract.Watching):
    pass


class TestWritingAtOnce(contract.WritingAtOnce):
    pass


class TestClosing(contract.Closing):
    pass
