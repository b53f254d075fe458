"""A layer with many resources counts as one with few does: whatever hides what, and in whatever order."""

from __future__ import annotations

import random

import pytest

from kumafast.snapshot import Layer, Snapshot, XdsResource
from kumafast.snapshot import snapshot as snapshots
from kumafast.snapshot.resource import CLUSTER, LISTENER


def random_layer(rng: random.Random) -> Layer:
    """Resources of two types, of which some have the names of others, also within the layer."""
    return Layer(
        XdsResource(rng.choice([CLUSTER, LISTENER]), f"r-{rng.randrange(40)}", rng.randbytes(2))
        for _ in range(rng.choice([0, 1, 1, 5, 20, 30]))
    )


def contents(layers: list[Layer]) -> dict[str, tuple[list[tuple[str, XdsResource]], bool]]:
    snapshot = Snapshot(layers)
    found = {type_url: snapshot.content(type_url) for type_url in snapshot.type_urls}
    return {
        type_url: (list(content.resources.items()), content.hides)
        for type_url, content in found.items()
        if content is not None
    }


@pytest.mark.parametrize("seed", range(60))
def test_many_resources_are_seen_as_few_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    layers = [random_layer(rng) for _ in range(rng.randrange(1, 6))]
    by_layer = contents(layers)
    monkeypatch.setattr(snapshots, "_MANY", 1_000)
    assert by_layer == contents(layers)
