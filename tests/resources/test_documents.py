"""What is written comes back equal: the answers of a real Kuma 2.14, and anything that Hypothesis can think of."""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders

from kumafast.errors import MalformedResourceError
from kumafast.resources import Dataplane, Decoder, Mesh, decode, encode, parse, to_document, unknown_fields, validate

ECHO: dict[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "echo-1",
    "labels": {"kuma.io/env": "universal", "kuma.io/mesh": "default", "kuma.io/zone": "default"},
    "networking": {
        "address": "127.0.0.1",
        "inbound": [
            {
                "port": 17001,
                "servicePort": 17101,
                "tags": {
                    "kuma.io/protocol": "http",
                    "kuma.io/service": "echo",
                    "kuma.io/zone": "default",
                    "version": "v1",
                },
            }
        ],
        "admin": {"port": 17901},
    },
}

FULL: dict[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "full",
    "networking": {
        "address": "10.0.0.1",
        "advertisedAddress": "web.example.com",
        "inbound": [
            {
                "port": 80,
                "servicePort": 8080,
                "serviceAddress": "127.0.0.1",
                "address": "10.0.0.2",
                "tags": {"kuma.io/service": "web"},
                "protocol": "http",
                "name": "main",
                "state": "NotReady",
                "health": {"ready": True},
                "serviceProbe": {
                    "interval": "10s",
                    "timeout": "0.5s",
                    "unhealthyThreshold": 1,
                    "healthyThreshold": 2,
                    "tcp": {},
                },
            }
        ],
        "outbound": [
            {"port": 90, "address": "127.0.0.2", "tags": {"kuma.io/service": "backend", "version": "v1"}},
            {"port": 91, "backendRef": {"kind": "MeshService", "labels": {"a": "b"}, "port": 80}},
        ],
        "listeners": [
            {"type": "ZoneIngress", "address": "10.0.0.1", "port": 10001, "name": "ingress", "state": "NotReady"}
        ],
        "transparentProxying": {
            "redirectPortInbound": 15006,
            "redirectPortOutbound": 15001,
            "directAccessServices": ["*"],
            "reachableServices": ["backend"],
            "reachableBackends": {"refs": [{"kind": "MeshService", "name": "backend"}]},
            "ipFamilyMode": "IPv4",
        },
        "admin": {"port": 9901},
    },
    "metrics": {"name": "prom", "type": "prometheus", "conf": {"port": 5670, "tags": {"a": "b"}, "list": [1, None]}},
    "probes": {"port": 9000, "endpoints": [{"inboundPort": 80, "inboundPath": "/healthz", "path": "/80/healthz"}]},
}

MESH: dict[str, Any] = {
    "type": "Mesh",
    "name": "default",
    "mtls": {
        "enabledBackend": "ca-1",
        "backends": [
            {
                "name": "ca-1",
                "type": "builtin",
                "mode": "PERMISSIVE",
                "dpCert": {"rotation": {"expiration": "1d"}, "requestTimeout": "10s"},
                "rootChain": {"requestTimeout": "3s"},
                "conf": {"caCert": {"RSAbits": 4096}},
            }
        ],
        "skipValidation": True,
    },
    "tracing": {
        "defaultBackend": "z",
        "backends": [{"name": "z", "sampling": 0.0, "type": "zipkin", "conf": {"url": "http://z:9411/api/v2/spans"}}],
    },
    "logging": {
        "defaultBackend": "file",
        "backends": [
            {"name": "file", "format": "%START_TIME%", "type": "file", "conf": {"path": "/tmp/log"}},
            {"name": "tcp", "type": "tcp", "conf": {"address": "[::1]:80"}},
        ],
    },
    "metrics": {"enabledBackend": "p", "backends": [{"name": "p", "type": "prometheus", "conf": {"port": 5670}}]},
    "networking": {"outbound": {"passthrough": False}},
    "routing": {
        "localityAwareLoadBalancing": True,
        "zoneEgress": True,
        "defaultForbidMeshExternalServiceAccess": True,
    },
    "constraints": {
        "dataplaneProxy": {"requirements": [{"tags": {"team": "*"}}], "restrictions": [{"tags": {"legacy": "*"}}]}
    },
    "meshServices": {"mode": "Exclusive"},
    "skipCreatingInitialPolicies": ["*"],
}

DOCUMENTS = {
    "dataplane": ECHO,
    "full": FULL,
    "mesh": MESH,
    "least-mesh": {"type": "Mesh", "name": "m"},
    "gateway": {
        "type": "Dataplane",
        "mesh": "default",
        "name": "gw",
        "networking": {"address": "10.0.0.9", "gateway": {"type": "BUILTIN", "tags": {"kuma.io/service": "gw"}}},
    },
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_round_trip(document: dict[str, Any]) -> None:
    resource = parse(document)
    assert validate(resource) == ()
    assert unknown_fields(document) == ()
    assert to_document(resource) == document
    assert parse(to_document(resource)) == resource
    assert decode(encode(resource)) == resource
    assert encode(decode(encode(resource))) == encode(resource)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_resources_are_values(document: dict[str, Any]) -> None:
    one, other = parse(document), parse(deepcopy(document))
    assert one == other
    assert hash(one) == hash(other)
    assert deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


def test_document_starts_with_what_names_it() -> None:
    assert list(to_document(parse(ECHO))) == ["type", "mesh", "name", "labels", "networking"]
    assert list(to_document(parse(MESH)))[:2] == ["type", "name"]


def test_defaults_are_left_out() -> None:
    document = to_document(
        parse(
            {
                **ECHO,
                "labels": {},
                "networking": {
                    "address": "127.0.0.1",
                    "inbound": [{"port": 80, "servicePort": 0, "address": "", "state": "Ready", "tags": {}}],
                    "outbound": [],
                    "admin": None,
                },
                "probes": None,
            }
        )
    )
    assert document == {
        "type": "Dataplane",
        "mesh": "default",
        "name": "echo-1",
        "networking": {"address": "127.0.0.1", "inbound": [{"port": 80}]},
    }


def test_equal_content_is_equal_bytes() -> None:
    tags = {"version": "v1", "kuma.io/service": "web", "a": "b"}
    one = builders.dataplane(tags=tags)
    other = builders.dataplane(tags=dict(reversed(tags.items())))
    assert one == other
    assert encode(one) == encode(other)


def test_mesh_belongs_to_no_mesh() -> None:
    mesh = parse({"type": "Mesh", "name": "a", "mesh": "b"})
    assert mesh.key == ("Mesh", "", "a")
    assert "mesh" not in to_document(mesh)


def test_key() -> None:
    assert parse(ECHO).key == ("Dataplane", "default", "echo-1")


def test_null_is_not_set_wherever_it_stands() -> None:
    document = {
        **ECHO,
        "labels": None,
        "networking": {
            "address": "10.0.0.1",
            "advertisedAddress": None,
            "inbound": [{"port": 80, "servicePort": None, "tags": {"kuma.io/service": "a", "x": None}, "health": None}],
            "outbound": None,
            "transparentProxying": {"redirectPort": None, "reachableServices": None},
        },
    }
    assert to_document(parse(document))["networking"] == {
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "tags": {"kuma.io/service": "a"}}],
        "transparentProxying": {},
    }


def test_null_does_not_hide_other_mistakes() -> None:
    with pytest.raises(MalformedResourceError) as caught:
        parse({**ECHO, "labels": None, "networking": {"address": 1}})
    assert [violation.field for violation in caught.value.violations] == ["networking.address"]


def test_unknown_fields_are_ignored_and_named() -> None:
    document: dict[str, Any] = {
        **ECHO,
        "creationTime": "0001-01-01T00:00:00Z",
        "modificationTime": "0001-01-01T00:00:00Z",
        "kri": "kri_dp_default___echo-1_",
        "spec": {},
        "networking": {
            "address": "127.0.0.1",
            "adress": "x",
            "inbound": [{"port": 80, "tags": {"kuma.io/service": "a", "any": "tag"}, "weight": 1}],
            "outbound": [{"interface": ":90", "service": "b", "servicePort": 1}, {"port": 91, "ports": 1}],
        },
        "metrics": {"type": "prometheus", "conf": {"anything": {"goes": 1}}},
    }
    assert unknown_fields(document) == (
        "networking.adress",
        "networking.inbound[0].weight",
        "networking.outbound[0].servicePort",
        "networking.outbound[1].ports",
        "spec",
    )
    assert to_document(parse(document)) == {
        **{name: ECHO[name] for name in ("type", "mesh", "name", "labels")},
        "networking": {
            "address": "127.0.0.1",
            "inbound": [{"port": 80, "tags": {"any": "tag", "kuma.io/service": "a"}}],
            "outbound": [{"address": "127.0.0.1", "port": 90, "tags": {"kuma.io/service": "b"}}, {"port": 91}],
        },
        "metrics": {"type": "prometheus", "conf": {"anything": {"goes": 1}}},
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"type": "Mesh"', b"\xff"])
def test_bytes_that_are_no_resource(data: bytes) -> None:
    with pytest.raises(MalformedResourceError):
        decode(data)


def test_python_names_and_dicts_are_accepted() -> None:
    dataplane = Dataplane.model_validate(
        {"name": "a", "mesh": "m", "networking": {"address": "10.0.0.1", "inbound": [{"port": 1, "service_port": 2}]}}
    )
    assert dataplane.inbounds[0].service_port == 2
    assert Mesh(name="m") == parse({"type": "Mesh", "name": "m"})


def test_resources_cannot_be_changed() -> None:
    dataplane = builders.dataplane()
    with pytest.raises(ValueError, match="frozen"):
        dataplane.name = "other"
    with pytest.raises(TypeError, match="cannot be changed"):
        dataplane.inbounds[0].tags["a"] = "b"  # type: ignore[index]


_words = st.text(max_size=8)
_tags = st.dictionaries(_words, _words, max_size=4)
_ports = st.integers(min_value=-1, max_value=70_000)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=5,
)
_inbounds = st.fixed_dictionaries(
    {},
    optional={
        "port": _ports,
        "servicePort": _ports,
        "serviceAddress": _words,
        "address": _words,
        "tags": _tags,
        "protocol": _words,
        "name": _words,
        "state": st.sampled_from(["Ready", "NotReady", "Ignored"]),
        "health": st.fixed_dictionaries({}, optional={"ready": st.booleans()}),
        "interface": _words | st.sampled_from(["10.0.0.1:80:81", "10.0.0.1:0:1"]),
    },
)
_outbounds = st.fixed_dictionaries(
    {},
    optional={
        "port": _ports,
        "address": _words,
        "tags": _tags,
        "service": _words,
        "interface": _words | st.sampled_from([":80", "127.0.0.2:80"]),
        "backendRef": st.fixed_dictionaries({}, optional={"kind": _words, "labels": _tags, "port": _ports}),
    },
)
_dataplanes = st.fixed_dictionaries(
    {"type": st.just("Dataplane"), "name": _words, "mesh": _words},
    optional={
        "labels": _tags,
        "metrics": st.fixed_dictionaries({}, optional={"conf": st.dictionaries(_words, _json, max_size=3)}),
        "networking": st.fixed_dictionaries(
            {},
            optional={
                "address": _words,
                "inbound": st.lists(_inbounds, max_size=3),
                "outbound": st.lists(_outbounds, max_size=3),
                "gateway": st.fixed_dictionaries({"tags": _tags}),
                "transparentProxying": st.fixed_dictionaries({}, optional={"redirectPort": _ports}),
            },
        ),
    },
)


@given(_dataplanes)
def test_any_dataplane_round_trips(document: dict[str, Any]) -> None:
    resource = parse(document)
    again = parse(to_document(resource))
    assert again == resource
    assert hash(again) == hash(resource)
    assert decode(encode(resource)) == resource
    assert encode(again) == encode(resource)
    assert validate(again) == validate(resource)


@given(st.lists(_dataplanes, max_size=4), st.booleans())
def test_what_is_read_together_is_what_each_alone_is(documents: list[dict[str, Any]], are_todays: bool) -> None:
    if are_todays:
        documents = [to_document(parse(document)) for document in documents]
    decoder = Decoder()
    for document in [*documents, *reversed(documents)]:
        resource = decoder.decode(orjson.dumps(document))
        alone = parse(document)
        assert resource == alone
        assert encode(resource) == encode(alone)


def test_dataplanes_that_are_read_together_share_equal_outbounds() -> None:
    def outbounds(*ports: int) -> list[dict[str, object]]:
        return [{"port": port, "tags": {"kuma.io/service": "a"}} for port in ports]

    def read(decoder: Decoder, name: str, *ports: int) -> Dataplane:
        document = {"type": "Dataplane", "name": name, "networking": {"outbound": outbounds(*ports)}}
        dataplane = decoder.decode(orjson.dumps(document))
        assert isinstance(dataplane, Dataplane)
        return dataplane

    decoder = Decoder()
    one, other, third = read(decoder, "a", 1, 2), read(decoder, "b", 1, 2), read(decoder, "c", 1)
    assert all(was is now for was, now in zip(one.outbounds, other.outbounds, strict=True))
    assert third.outbounds == one.outbounds[:1]
    decoder.forget()
    assert read(decoder, "d", 1, 2).outbounds[0] is not one.outbounds[0]


@pytest.mark.parametrize("key", ["service", "s\\u0065rvice"])
def test_old_forms_are_found_however_they_are_written(key: str) -> None:
    data = f'{{"type":"Dataplane","name":"a","networking":{{"outbound":[{{"{key}" : "b"}}]}}}}'
    dataplane = decode(data.encode())
    assert isinstance(dataplane, Dataplane)
    assert dataplane.outbounds[0].tags == {"kuma.io/service": "b"}


@pytest.mark.parametrize("tags", [{"b": "1", "a": "2"}, {"a": "2", "b": "1"}, {"a": "1"}, {}])
def test_tags_are_sorted_and_read_only(tags: dict[str, str]) -> None:
    read = parse({"type": "Dataplane", "name": "a", "labels": tags}).labels
    assert list(read.items()) == sorted(tags.items())
    with pytest.raises(TypeError):
        read["c"] = "3"  # type: ignore[index]
    assert read is not tags


_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["Mesh", "Dataplane", "DataplaneInsight"]), _junk, _junk, _junk)
def test_junk_is_parsed_or_refused(type_name: str, one: object, two: object, three: object) -> None:
    document: dict[str, object] = {
        "type": type_name,
        "name": one,
        "labels": two,
        "mtls": two,
        "logging": {"accessLogs": one, "backends": three},
        "metrics": three,
        "networking": {"inbound": [one, {"tags": two, "interface": three}], "outbound": two, "gateway": three},
        "subscriptions": [{"status": {"total": {"responsesSent": one}}, "connectTime": two}],
    }
    try:
        resource = parse(document)
    except MalformedResourceError as error:
        said = [error.detail, *(f"{violation.field} {violation.message}" for violation in error.violations)]
    else:
        said = [f"{violation.field} {violation.message}" for violation in validate(resource)]
        assert decode(encode(resource)) == resource
    # Whatever is said of it can be sent to a client.
    orjson.dumps([*said, *unknown_fields(document)])
