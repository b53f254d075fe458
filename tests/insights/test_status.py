"""The statuses of streams in the form of insights, as small as they can be: there are two for each proxy, and a log."""

from __future__ import annotations

from collections.abc import Iterator

from kumafast.insights.clients import Clients, StreamStatus
from kumafast.insights.status import insight
from kumafast.resources import DataplaneInsight
from kumafast.resources.resource import Frozen
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT


def test_insights_have_the_names_of_their_fields_in_common() -> None:
    values = [value for number in range(20) for value in values_within(insight_of(number))]
    # An insight, two subscriptions, and of each the status, the counts and two types.
    assert len(values) >= 20 * 11
    # What has none given is a default, of which there is one.
    shapes = {id(value.model_fields_set): frozenset(value.model_fields_set) for value in values}
    given = [shape for shape in shapes.values() if shape]
    assert len(given) == len(set(given))


def insight_of(number: int) -> DataplaneInsight:
    """That of a proxy whose first stream has ended, with counts that no other has."""
    clients = Clients()
    streams: list[StreamStatus] = []
    for stream in ("first", "second"):
        clients.stream_opened(stream, Node(f"default.dp-{number}"))
        status = clients.stream(stream)
        assert status is not None
        streams.append(status)
        for sent in range(number + 1):
            for type_url in (CLUSTER, ENDPOINT):
                clients.response_sent(stream, type_url, f"v{sent}", 1)
                clients.response_acknowledged(stream, type_url, f"v{sent}")
        if stream == "first":
            clients.stream_closed(stream)
    found = insight(mesh="default", name=f"dp-{number}", streams=streams, instance_id="cp-1", before=None)
    return found.lean()


def values_within(value: Frozen) -> Iterator[Frozen]:
    """A value, and all in its fields."""
    yield value
    for field in value.__dict__.values():
        for inner in field if isinstance(field, tuple) else (field,):
            if isinstance(inner, Frozen):
                yield from values_within(inner)
