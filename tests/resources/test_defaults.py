"""What the server adds, and the identifiers that it gives, as a real Kuma 2.14 answers them."""

from __future__ import annotations

from tests import builders

from kumafast.resources import Dataplane, DataplaneInsight, kri, parse, to_document, validate, with_defaults

LABELS = {
    "kuma.io/env": "universal",
    "kuma.io/mesh": "default",
    "kuma.io/origin": "zone",
    "kuma.io/proxy-type": "sidecar",
    "kuma.io/zone": "default",
}


def _completed(dataplane: Dataplane, zone: str = "default") -> Dataplane:
    completed = with_defaults(dataplane, zone=zone)
    assert isinstance(completed, Dataplane)
    return completed


def test_dataplane() -> None:
    completed = _completed(builders.dataplane("echo-1", tags={"kuma.io/service": "echo"}))
    assert completed.labels == LABELS
    assert completed.inbounds[0].tags == {"kuma.io/service": "echo", "kuma.io/zone": "default"}
    assert list(to_document(completed)) == ["type", "mesh", "name", "labels", "networking"]


def test_twice_is_once() -> None:
    once = _completed(builders.dataplane(outbound=[builders.outbound()], labels={"team": "a"}), zone="east")
    assert with_defaults(once, zone="east") == once
    assert with_defaults(parse(to_document(once)), zone="east") == once
    assert validate(once) == ()


def test_the_argument_is_left_alone() -> None:
    dataplane = builders.dataplane()
    _completed(dataplane)
    assert dataplane == builders.dataplane()


def test_labels_of_the_user_stay_and_those_of_the_server_win() -> None:
    completed = _completed(builders.dataplane(labels={"team": "a", "kuma.io/zone": "elsewhere"}))
    assert completed.labels == {**LABELS, "team": "a"}


def test_a_zone_tag_of_another_zone_is_replaced() -> None:
    completed = _completed(builders.dataplane(tags={"kuma.io/service": "a", "kuma.io/zone": "elsewhere"}))
    assert completed.inbounds[0].tags["kuma.io/zone"] == "default"


def test_gateway() -> None:
    completed = _completed(builders.dataplane(inbound=[], gateway={"tags": {"kuma.io/service": "kong"}}))
    assert completed.labels["kuma.io/proxy-type"] == "gateway"
    assert completed.gateway is not None
    assert completed.gateway.tags == {"kuma.io/service": "kong", "kuma.io/zone": "default"}
    assert validate(completed) == ()


def test_an_inbound_without_tags_stays_without() -> None:
    completed = _completed(builders.dataplane(inbound=[{"port": 80}]))
    assert completed.inbounds[0].tags == {}
    assert validate(completed) == ()


def test_mesh_and_insight_get_nothing() -> None:
    mesh = builders.mesh()
    insight = DataplaneInsight(name="a", mesh="default")
    assert with_defaults(mesh, zone="default") is mesh
    assert with_defaults(insight, zone="default") is insight


def test_without_networking() -> None:
    assert _completed(Dataplane(name="a", mesh="default")).labels == LABELS


def test_kri() -> None:
    assert kri(builders.dataplane("echo-1"), zone="default") == "kri_dp_default_default__echo-1_"
    assert kri(builders.mesh(), zone="default") == "kri_m____default_"
    assert kri(DataplaneInsight(name="a", mesh="default"), zone="default") == ""
