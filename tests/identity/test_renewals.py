"""Renewals against a table that is looked through from end to end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kumafast.identity.renewals import Renewals

_nodes = st.sampled_from([f"default.dp-{number}" for number in range(8)])
_times = st.integers(0, 50).map(float)
_steps = st.lists(
    st.tuples(st.just("set"), _nodes, _times)
    | st.tuples(st.just("forget"), _nodes, st.just(0.0))
    | st.tuples(st.just("take"), st.just(""), _times),
    max_size=80,
)


@given(_steps)
def test_whatever_is_set_and_forgotten_those_whose_time_has_come_are_taken_in_its_order(
    steps: list[tuple[str, str, float]],
) -> None:
    renewals = Renewals()
    naive: dict[str, float] = {}
    for what, node, at in steps:
        if what == "set":
            renewals.set(node, at)
            naive[node] = at
        elif what == "forget":
            renewals.forget(node)
            naive.pop(node, None)
        else:
            due = sorted((each, name) for name, each in naive.items() if each <= at)
            assert renewals.take(at) == [name for _, name in due]
            for _, name in due:
                del naive[name]
        assert len(renewals) == len(naive)
        assert renewals.next == min(naive.values(), default=None)


def test_what_is_set_again_and_again_takes_no_more_room() -> None:
    renewals = Renewals()
    for at in range(100_000):
        renewals.set(f"default.dp-{at % 10}", float(at))
    assert len(renewals._heap) <= 2 * 10 + 17
    assert len(renewals.take(100_000.0)) == 10
    assert renewals.take(100_000.0) == []
