"""TrafficRoutes and TrafficPermissions that must be refused, and with what.

In: nothing. Out: `BAD_ROUTES` and `BAD_PERMISSIONS`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely
unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import ABSENT, NAME, NUMBER, TEXT, BadDocument, invalid, malformed, with_fields

EVERYTHING = [{"match": {"kuma.io/service": "*"}}]
BACKEND = {"kuma.io/service": "backend"}
V1 = {**BACKEND, "version": "1"}
PREFIX = {"path": {"prefix": "/v1"}}

EMPTY = "cannot be empty"
NO_TARGET = 'requires either "destination" or "split"'
TWO_TARGETS = '"split" cannot be defined at the same time as "destination"'
NO_ELEMENT = "must have at least one element"
NO_TAG = "must have at least one tag"
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
NO_WEIGHT = "there must be at least one split entry with weight above 0"
NO_MATCH = 'must be present and contain at least one of the elements: "method", "path" or "headers"'
NO_OPTION = 'cannot be empty. Available options: "exact", "split" or "regex"'
PSEUDO = "host header and HTTP/2 pseudo-headers are not allowed to be modified"
SELECTOR_VALUE = 'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"'
BITS = "must be a whole number of at most 64 bits"
RING_MAX = 8_388_608


def route(**over: Any) -> dict[str, Any]:
    """A good route with some fields replaced."""
    fields = {"type": "TrafficRoute", "mesh": "default", "name": "r", "sources": EVERYTHING, "destinations": EVERYTHING}
    return with_fields({**fields, "conf": {"destination": BACKEND}}, **over)


def conf(**over: Any) -> dict[str, Any]:
    """A good route with some fields of its conf replaced."""
    return route(conf=with_fields({"destination": BACKEND}, **over))


def rule(**over: Any) -> dict[str, Any]:
    """A good route with one rule for requests, some fields of it replaced."""
    return conf(http=[with_fields({"match": PREFIX, "destination": V1}, **over)])


def modify(**changes: Any) -> dict[str, Any]:
    """A good route with one rule that changes requests."""
    return rule(modify=changes)


def balancer(**kinds: Any) -> dict[str, Any]:
    """A good route with a load balancer."""
    return conf(loadBalancer=kinds)


_TARGETS: list[BadDocument] = [
    invalid("route-no-conf", route(conf=ABSENT), ("conf", EMPTY)),
    invalid("route-no-target", route(conf={}), ("conf", NO_TARGET)),
    invalid("route-two-targets", conf(split=[{"weight": 1, "destination": BACKEND}]), ("conf", TWO_TARGETS)),
    invalid("route-empty-target", conf(destination={}), ("conf.destination", NO_TAG), ("conf.destination", NO_SERVICE)),
    invalid(
        "route-target-tags",
        conf(destination={"version": "1 2"}),
        ('conf.destination["version"]', SELECTOR_VALUE),
        ("conf.destination", NO_SERVICE),
    ),
    invalid("route-empty-split", conf(destination=ABSENT, split=[]), ("conf.split", NO_ELEMENT)),
    invalid(
        "route-split-entries",
        conf(destination=ABSENT, split=[{"destination": BACKEND}, {"weight": 0}]),
        ("conf.split[0].weight", "needs to be defined"),
        ("conf.split[1].destination", NO_TAG),
        ("conf.split[1].destination", NO_SERVICE),
        ("conf.split", NO_WEIGHT),
    ),
    invalid(
        "route-split-of-nothing",
        conf(destination=ABSENT, split=[{"weight": 0, "destination": BACKEND}]),
        ("conf.split", NO_WEIGHT),
    ),
    invalid(
        "route-split-too-heavy",
        conf(
            destination=ABSENT, split=[{"weight": 2**32 - 1, "destination": BACKEND}, {"weight": 1, "destination": V1}]
        ),
        ("conf.split", "the weights must not add up to more than 4294967295"),
    ),
    malformed(
        "route-weight-text",
        conf(destination=ABSENT, split=[{"weight": "1", "destination": BACKEND}]),
        ("conf.split[0].weight", NUMBER),
    ),
    malformed(
        "route-weight-negative",
        conf(destination=ABSENT, split=[{"weight": -1, "destination": BACKEND}]),
        ("conf.split[0].weight", BITS),
    ),
    malformed("route-target-text", conf(destination="backend"), ("conf.destination", "must be an object")),
]

_RULES: list[BadDocument] = [
    invalid("route-rule-no-match", rule(match=ABSENT), ("conf.http[0].match", NO_MATCH)),
    invalid("route-rule-empty-match", rule(match={}), ("conf.http[0].match", NO_MATCH)),
    invalid("route-rule-no-target", rule(destination=ABSENT), ("conf.http[0]", NO_TARGET)),
    invalid(
        "route-rule-two-targets", rule(split=[{"weight": 1, "destination": BACKEND}]), ("conf.http[0]", TWO_TARGETS)
    ),
    invalid("route-rule-empty-split", rule(destination=ABSENT, split=[]), ("conf.http[0].split", NO_ELEMENT)),
    invalid(
        "route-rule-empty-texts",
        rule(match={"method": {}, "path": {"prefix": ""}, "headers": {"x": {"regex": ""}}}),
        ("conf.http[0].match.method", NO_OPTION),
        ("conf.http[0].match.path.prefix", EMPTY),
        ('conf.http[0].match.headers["x"].regex', EMPTY),
    ),
    invalid(
        "route-rule-two-texts",
        rule(match={"path": {"exact": "/a", "regex": "/b"}}),
        ("conf.http[0].match.path", 'only one of "exact" and "regex" can be set'),
    ),
    invalid(
        "route-rule-no-headers",
        rule(match={"headers": {}}),
        ("conf.http[0].match.headers", "must contain at least one element"),
    ),
    invalid(
        "route-rule-header-without-name",
        rule(match={"headers": {"": {"exact": "1"}}}),
        ('conf.http[0].match.headers[""]', EMPTY),
    ),
    malformed("route-rule-path-text", rule(match={"path": "/a"}), ("conf.http[0].match.path", "must be an object")),
    malformed(
        "route-rule-prefix-number", rule(match={"path": {"prefix": 1}}), ("conf.http[0].match.path.prefix", TEXT)
    ),
]

_CHANGES: list[BadDocument] = [
    invalid(
        "route-change-nothing",
        modify(path={}, host={}),
        ("conf.http[0].modify.path", 'either "rewritePrefix" or "regex" has to be set'),
        ("conf.http[0].modify.host", 'either "value" or "fromPath" has to be set'),
    ),
    invalid(
        "route-change-both",
        modify(
            path={"rewritePrefix": "/a", "regex": {"pattern": "a", "substitution": "b"}},
            host={"value": "a", "fromPath": {"pattern": "a", "substitution": "b"}},
        ),
        ("conf.http[0].modify.path", 'only one of "rewritePrefix" and "regex" can be set'),
        ("conf.http[0].modify.host", 'only one of "value" and "fromPath" can be set'),
    ),
    invalid(
        "route-change-empty-prefix",
        modify(path={"rewritePrefix": ""}),
        ("conf.http[0].modify.path.rewritePrefix", EMPTY),
    ),
    invalid(
        "route-change-prefix-of-no-prefix",
        rule(match={"method": {"exact": "GET"}}, modify={"path": {"rewritePrefix": "/a"}}),
        ("conf.http[0].modify.path.rewritePrefix", "can only be set when .http.match.path.prefix is not empty"),
    ),
    invalid(
        "route-change-patterns",
        modify(path={"regex": {}}, host={"fromPath": {"pattern": "a"}}),
        ("conf.http[0].modify.path.regex.pattern", EMPTY),
        ("conf.http[0].modify.path.regex.substitution", EMPTY),
        ("conf.http[0].modify.host.fromPath.substitution", EMPTY),
    ),
    invalid("route-change-empty-host", modify(host={"value": ""}), ("conf.http[0].modify.host.value", EMPTY)),
    invalid(
        "route-change-headers",
        modify(
            requestHeaders={
                "add": [{"name": "", "value": ""}, {"name": ":path", "value": "a"}],
                "remove": [{"name": ""}],
            },
            responseHeaders={"add": [{"name": "Host", "value": "a"}], "remove": [{"name": ":status"}]},
        ),
        ("conf.http[0].modify.requestHeaders.add[0].name", EMPTY),
        ("conf.http[0].modify.requestHeaders.add[0].value", EMPTY),
        ("conf.http[0].modify.requestHeaders.add[1].name", PSEUDO),
        ("conf.http[0].modify.requestHeaders.remove[0].name", EMPTY),
        ("conf.http[0].modify.responseHeaders.add[0].name", PSEUDO),
        ("conf.http[0].modify.responseHeaders.remove[0].name", PSEUDO),
    ),
    malformed(
        "route-change-append",
        modify(requestHeaders={"add": [{"name": "a", "value": "b", "append": "yes"}]}),
        ("conf.http[0].modify.requestHeaders.add[0].append", "must be true or false"),
    ),
]

_BALANCERS: list[BadDocument] = [
    invalid(
        "route-two-balancers",
        balancer(random={}, maglev={}),
        ("conf.loadBalancer", 'only one of "random" and "maglev" can be set'),
    ),
    invalid(
        "route-one-choice",
        balancer(leastRequest={"choiceCount": 1}),
        ("conf.loadBalancer.leastRequest.choiceCount", "value must be greater than or equal to 2"),
    ),
    invalid(
        "route-hash-function",
        balancer(ringHash={"hashFunction": "MD5"}),
        ("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function"),
    ),
    invalid(
        "route-no-hash-function",
        balancer(ringHash={}),
        ("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function"),
    ),
    invalid(
        "route-ring-too-big",
        balancer(ringHash={"hashFunction": "XX_HASH", "minRingSize": RING_MAX + 1, "maxRingSize": RING_MAX + 1}),
        ("conf.loadBalancer.ringHash.minRingSize", f"value must be less than or equal to {RING_MAX}"),
        ("conf.loadBalancer.ringHash.maxRingSize", f"value must be less than or equal to {RING_MAX}"),
    ),
    invalid(
        "route-ring-shrinks",
        balancer(ringHash={"hashFunction": "XX_HASH", "minRingSize": 2, "maxRingSize": 1}),
        ("conf.loadBalancer.ringHash.minRingSize", "must not be greater than maxRingSize"),
    ),
    malformed(
        "route-choices",
        balancer(leastRequest={"choiceCount": "2"}),
        ("conf.loadBalancer.leastRequest.choiceCount", NUMBER),
    ),
    malformed("route-balancer", conf(loadBalancer="random"), ("conf.loadBalancer", "must be an object")),
]

BAD_ROUTES: list[BadDocument] = [*_TARGETS, *_RULES, *_CHANGES, *_BALANCERS]


def permission(**over: Any) -> dict[str, Any]:
    """A good permission with some fields replaced."""
    fields = {"type": "TrafficPermission", "mesh": "default", "name": "p"}
    return with_fields({**fields, "sources": EVERYTHING, "destinations": [{"match": BACKEND}]}, **over)


def rules(*each: dict[str, Any]) -> dict[str, Any]:
    """A permission in the form of 0.1.0."""
    return permission(sources=ABSENT, destinations=ABSENT, rules=list(each))


GOOD_RULE = {"sources": EVERYTHING, "destinations": EVERYTHING}

BAD_PERMISSIONS: list[BadDocument] = [
    invalid(
        "permission-nothing",
        permission(sources=ABSENT, destinations=ABSENT),
        ("sources", NO_ELEMENT),
        ("destinations", NO_ELEMENT),
    ),
    invalid("permission-no-sources", permission(sources=[]), ("sources", NO_ELEMENT)),
    invalid("permission-no-destinations", permission(destinations=[]), ("destinations", NO_ELEMENT)),
    invalid(
        "permission-empty-selectors",
        permission(sources=[{}], destinations=[{"match": {}}]),
        ("sources[0].match", NO_TAG),
        ("destinations[0].match", NO_TAG),
    ),
    invalid(
        "permission-tags",
        permission(sources=[{"match": {"a": ""}}], destinations=[{"match": {"b": "c d"}}]),
        ('sources[0].match["a"]', "tag value must be non-empty"),
        ('destinations[0].match["b"]', SELECTOR_VALUE),
    ),
    invalid("permission-name", permission(name="P"), ("name", NAME)),
    invalid("permission-no-name", permission(name=ABSENT), ("name", EMPTY)),
    invalid(
        "permission-rules",
        rules(GOOD_RULE, {"sources": [], "destinations": [{"match": {}}]}),
        ("rules[1].sources", NO_ELEMENT),
        ("rules[1].destinations[0].match", NO_TAG),
    ),
    invalid(
        "permission-too-many-rules",
        rules(*({end: [{"match": {"kuma.io/service": f"s{i}"}}] for end in GOOD_RULE} for i in range(257))),
        ("rules", "must have at most 256 elements"),
    ),
    invalid("permission-mesh", permission(mesh=""), ("mesh", EMPTY)),
    invalid(
        "permission-both-forms",
        permission(rules=[GOOD_RULE, {**GOOD_RULE, "destinations": [{"match": BACKEND}]}]),
        ("rules", "must not be defined beside 'sources' and 'destinations'"),
    ),
    malformed("permission-sources", permission(sources={"match": BACKEND}), ("sources", "must be a list")),
    malformed("permission-match", permission(sources=[{"match": ["web"]}]), ("sources[0].match", "must be an object")),
    malformed("permission-value", permission(sources=[{"match": {"a": 1}}]), ('sources[0].match["a"]', TEXT)),
]
