"""MeshLoadBalancingStrategy is refused in Kuma's words and comes back as written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kumafast.resources import parse, to_document, unknown_fields, validate

TO = {"kind": "MeshService", "name": "backend"}
ONLY_HASHES = "field is not allowed when targetRef.kind is MeshHTTPRoute, only hashPolicies is supported"


def strategy(conf: Any, *, ref: dict[str, Any] | None = None, top: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"targetRef": top or {"kind": "Mesh"}, "to": [{"targetRef": ref or TO, "default": conf}]}
    return {"type": "MeshLoadBalancingStrategy", "mesh": "default", "name": "lb", "spec": spec}


def violations(document: dict[str, Any]) -> list[tuple[str, str]]:
    prefix = "spec.to[0].default."
    return [(each.field.removeprefix(prefix), each.message) for each in validate(parse(document))]


ALL_OF_IT = """
localityAwareness:
  localZone: {affinityTags: [{key: k8s.io/node, weight: 9}, {key: k8s.io/az, weight: 1}]}
  crossZone:
    failover:
    - {from: {zones: [a]}, to: {type: Only, zones: [b]}}
    - {to: {type: AnyExcept, zones: [c]}}
    - {to: {type: None}}
    failoverThreshold: {percentage: "50.5"}
loadBalancer: {type: LeastRequest, leastRequest: {choiceCount: 3, activeRequestBias: "1.5"}}
hashPolicies:
- {type: Header, terminal: true, header: {name: x}}
- {type: Cookie, cookie: {name: c, ttl: 1h0m0s, path: /a}}
- {type: Connection, connection: {sourceIP: true}}
"""


def test_what_is_valid_comes_back_as_written() -> None:
    document = strategy(yaml.safe_load(ALL_OF_IT.replace("None", '"None"')))
    assert violations(document) == []
    assert unknown_fields(document) == ()
    assert to_document(parse(document)) == document


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (
            "loadBalancer: {type: LeastRequest, leastRequest: {choiceCount: 1, activeRequestBias: -1}}",
            [
                ("loadBalancer.leastRequest.choiceCount", "in body should be greater than or equal to 2"),
                ("loadBalancer.leastRequest.activeRequestBias", "must be greater or equal then: 0"),
            ],
        ),
        (
            "loadBalancer: {type: LeastRequest, leastRequest: {activeRequestBias: many}}",
            [("loadBalancer.leastRequest.activeRequestBias", "string must be a valid number")],
        ),
        (
            "loadBalancer: {type: RingHash, ringHash: {minRingSize: 0, maxRingSize: 8000001}}",
            [
                ("loadBalancer.ringHash.minRingSize", "in body should be greater than or equal to 1"),
                ("loadBalancer.ringHash.maxRingSize", "in body should be less than or equal to 8000000"),
            ],
        ),
        (
            "loadBalancer: {type: RingHash, ringHash: {minRingSize: 9, maxRingSize: 8, "
            "hashPolicies: [{type: Header}]}}",
            [
                ("loadBalancer.ringHash.minRingSize", "must not be greater than maxRingSize"),
                ("loadBalancer.ringHash.hashPolicies[0].header", "must be defined"),
            ],
        ),
        (
            "loadBalancer: {type: Maglev, maglev: {tableSize: 1000, hashPolicies: [{type: SourceIP}]}}",
            [
                ("loadBalancer.maglev.tableSize", "must be a prime number"),
                ("loadBalancer.maglev.hashPolicies[0].connection", "must be defined"),
            ],
        ),
        ("loadBalancer: {type: Maglev, maglev: {tableSize: 65537}}", []),
        (
            "localityAwareness: {localZone: {affinityTags: [{weight: 0}, {key: a}]}}",
            [
                ("localityAwareness.localZone.affinityTags[0].key", "must not be empty"),
                ("localityAwareness.localZone.affinityTags[0].weight", "must be greater than 0"),
                ("localityAwareness.localZone.affinityTags", "all or none affinity tags should have weight"),
            ],
        ),
        (
            "localityAwareness: {crossZone: {failover: [{from: {}, to: {type: Any, zones: [a]}}, "
            "{from: {zones: ['']}, to: {type: Only}}], failoverThreshold: {percentage: 0}}}",
            [
                ("localityAwareness.crossZone.failover[0].from.zones", "must not be empty"),
                ("localityAwareness.crossZone.failover[0].to.zones", "must be empty when type is Any"),
                ("localityAwareness.crossZone.failover[1].from.zones[0]", "must not be empty"),
                ("localityAwareness.crossZone.failover[1].to.zones", "must not be empty when type is Only"),
                ("localityAwareness.crossZone.failoverThreshold.percentage", "must be greater than 0"),
            ],
        ),
        (
            "hashPolicies: [{type: Cookie, cookie: {name: c, path: a}}, {type: Cookie}, {type: QueryParameter}, "
            "{type: FilterState}, {type: Connection}, {type: Header, header: {}}]",
            [
                ("hashPolicies[0].cookie.path", "must be an absolute path"),
                ("hashPolicies[1].cookie", "must be defined"),
                ("hashPolicies[2].queryParameter", "must be defined"),
                ("hashPolicies[3].filterState", "must be defined"),
                ("hashPolicies[4].connection", "must be defined"),
                ("hashPolicies[5].header.name", "in body should be at least 1 chars long"),
            ],
        ),
    ],
)
def test_what_is_refused(conf: str, expected: list[tuple[str, str]]) -> None:
    assert violations(strategy(yaml.safe_load(conf))) == expected


def test_a_route_takes_hashes_alone() -> None:
    conf = {"loadBalancer": {"type": "Random"}, "localityAwareness": {}, "hashPolicies": [{"type": "Header"}]}
    assert violations(strategy(conf, ref={"kind": "MeshHTTPRoute", "name": "r"})) == [
        ("hashPolicies[0].header", "must be defined"),
        ("loadBalancer", ONLY_HASHES),
        ("localityAwareness", ONLY_HASHES),
    ]


def test_a_balancer_of_a_gateway_is_for_everything() -> None:
    message = "value is not supported, only Mesh is allowed if loadBalancer is set"
    document = strategy({"loadBalancer": {"type": "Random"}}, top={"kind": "MeshGateway", "name": "g"})
    assert violations(document) == [("spec.to[0].targetRef.kind", message)]


def test_a_service_that_is_a_resource_is_in_one_zone() -> None:
    conf = {"localityAwareness": {"crossZone": {"failover": [{"to": {"type": "Any"}}]}}}
    found = violations(strategy(conf, ref={"kind": "MeshService", "name": "a", "sectionName": "80"}))
    assert found == [("localityAwareness.crossZone", "must not be set: MeshService traffic is local")]
