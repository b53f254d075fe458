"""TrafficRoute: where connections from some dataplanes to some services lead.

In: documents in Kuma's 2.14 form. Out: `TrafficRoute`, frozen, and the rules that it breaks. Never: what Envoy makes of
it, or which tags an outbound adds to a destination (`matching.routing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import AfterValidator, Strict

from kumafast.errors import Violation
from kumafast.resources.connection_policy import ConnectionPolicy, check_service_destinations, check_sources
from kumafast.resources.fields import Flag, FrozenMap, Tags, Text
from kumafast.resources.resource import Frozen, PolicyTraits, Resource, ResourceType, Scope
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import check_selector, key_of

WEIGHT_MAX = 2**32 - 1
"""The greatest weight, and the greatest sum of weights, that Envoy takes."""
RING_SIZE_MAX = 8_388_608
"""The largest ring that Envoy makes."""

_HASH_FUNCTIONS = ("XX_HASH", "MURMUR_HASH_2")

_Count = Annotated[int, Strict(), Ge(0), Le(WEIGHT_MAX)]


class Split(Frozen):
    """One of several destinations, and its share: weights are relative, and 0 is no share at all."""

    weight: _Count | None = None
    destination: Tags | None = None


class RoundRobin(Frozen):
    """One endpoint after the other."""


class LeastRequest(Frozen):
    """Of some endpoints chosen at random that with the fewest requests; 0 is two."""

    choice_count: _Count = 0


class RingHash(Frozen):
    """Consistent hashing on a ring; a size of 0 is Envoy's own."""

    hash_function: Text = ""
    min_ring_size: _Count = 0
    max_ring_size: _Count = 0


class Random(Frozen):
    """Any endpoint."""


class Maglev(Frozen):
    """Consistent hashing by a table."""


class LoadBalancer(Frozen):
    """How an endpoint is chosen: one of these."""

    round_robin: RoundRobin | None = None
    least_request: LeastRequest | None = None
    ring_hash: RingHash | None = None
    random: Random | None = None
    maglev: Maglev | None = None


class TextMatch(Frozen):
    """A condition on a text: one of these."""

    prefix: Text | None = None
    exact: Text | None = None
    regex: Text | None = None
    """In the syntax of RE2; the whole text has to match."""


def _sorted(headers: dict[str, TextMatch]) -> FrozenMap[str, TextMatch]:
    return FrozenMap(sorted(headers.items()))


class Match(Frozen):
    """Requests that meet all of these conditions."""

    method: TextMatch | None = None
    path: TextMatch | None = None
    headers: Annotated[dict[Text, TextMatch], AfterValidator(_sorted)] | None = None


class Replacement(Frozen):
    r"""A pattern of RE2, and what takes the place of what it finds; `\1` is its first group."""

    pattern: Text = ""
    substitution: Text = ""


class PathChange(Frozen):
    """Another path: of the prefix that the match names, or of what a pattern finds."""

    rewrite_prefix: Text | None = None
    regex: Replacement | None = None


class HostChange(Frozen):
    """Another host: this one, or made from the path."""

    value: Text | None = None
    from_path: Replacement | None = None


class Header(Frozen):
    """A header to set, or to append to what is there."""

    name: Text = ""
    value: Text = ""
    append: Flag = False


class HeaderName(Frozen):
    """A header to remove."""

    name: Text = ""


class HeaderChange(Frozen):
    """Headers to set and to remove."""

    add: tuple[Header, ...] = ()
    remove: tuple[HeaderName, ...] = ()


class Modify(Frozen):
    """What is changed in a request that matched, and in the response to it."""

    path: PathChange | None = None
    host: HostChange | None = None
    request_headers: HeaderChange | None = None
    response_headers: HeaderChange | None = None


class HttpRule(Frozen):
    """Where requests that match lead, and what is changed in them."""

    match: Match | None = None
    modify: Modify | None = None
    split: tuple[Split, ...] | None = None
    destination: Tags | None = None


class Conf(Frozen):
    """Where connections lead: those requests that a rule of `http` matches as the first that does, all else as here."""

    load_balancer: LoadBalancer | None = None
    split: tuple[Split, ...] | None = None
    destination: Tags | None = None
    http: tuple[HttpRule, ...] = ()


class TrafficRoute(ConnectionPolicy):
    """Says what outbounds of some dataplanes to some services lead to."""

    type: ClassVar[ResourceType] = ResourceType(
        name="TrafficRoute",
        scope=Scope.MESH,
        path="traffic-routes",
        singular="Traffic Route",
        plural="Traffic Routes",
        is_in_federation=True,
        policy=PolicyTraits(order=100, is_routing=True, successor="MeshHTTPRoute"),
    )

    conf: Conf | None = None

    @classmethod
    def initial_routing(cls, mesh: str) -> tuple[Resource, ...]:
        """Everything leads where it is addressed to."""
        everything = {"match": {SERVICE_TAG: "*"}}
        conf = {"loadBalancer": {"roundRobin": {}}, "destination": {SERVICE_TAG: "*"}}
        fields = {"sources": [everything], "destinations": [everything], "conf": conf}
        return (cls.model_validate({"mesh": mesh, "name": f"route-all-{mesh}", **fields}),)

    def settings(self) -> Conf | None:
        """Where connections lead."""
        return self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of routes that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
        if self.conf is None:
            yield Violation("conf", "cannot be empty")
            return
        yield from _check_targets("conf", self.conf)
        for i, rule in enumerate(self.conf.http):
            where = f"conf.http[{i}]"
            yield from _check_match(f"{where}.match", rule.match)
            yield from _check_modify(f"{where}.modify", rule)
            yield from _check_targets(where, rule)
        yield from _check_load_balancer("conf.loadBalancer", self.conf.load_balancer)


def _check_targets(path: str, of: Conf | HttpRule) -> Iterator[Violation]:
    if of.split is None and of.destination is None:
        yield Violation(path, 'requires either "destination" or "split"')
    if of.split is not None and of.destination is not None:
        yield Violation(path, '"split" cannot be defined at the same time as "destination"')
    if of.split is not None:
        yield from _check_split(f"{path}.split", of.split)
    if of.destination is not None:
        yield from _check_destination(f"{path}.destination", of.destination)


def _check_split(path: str, split: tuple[Split, ...]) -> Iterator[Violation]:
    if not split:
        yield Violation(path, "must have at least one element")
        return
    for i, each in enumerate(split):
        if each.weight is None:
            yield Violation(f"{path}[{i}].weight", "needs to be defined")
        yield from _check_destination(f"{path}[{i}].destination", each.destination or {})
    total = sum(each.weight or 0 for each in split)
    if total == 0:
        yield Violation(path, "there must be at least one split entry with weight above 0")
    if total > WEIGHT_MAX:
        yield Violation(path, f"the weights must not add up to more than {WEIGHT_MAX}")


def _check_destination(path: str, tags: Mapping[str, str]) -> Iterator[Violation]:
    yield from check_selector(path, tags)
    if SERVICE_TAG not in tags:
        yield Violation(path, f'mandatory tag "{SERVICE_TAG}" is missing')


def _check_match(path: str, match: Match | None) -> Iterator[Violation]:
    if match is None or (match.method is None and match.path is None and match.headers is None):
        yield Violation(path, 'must be present and contain at least one of the elements: "method", "path" or "headers"')
        return
    if match.method is not None:
        yield from _check_text_match(f"{path}.method", match.method)
    if match.path is not None:
        yield from _check_text_match(f"{path}.path", match.path)
    if match.headers is not None and not match.headers:
        yield Violation(f"{path}.headers", "must contain at least one element")
    for name, each in sorted((match.headers or {}).items()):
        where = key_of(f"{path}.headers", name)
        if not name:
            yield Violation(where, "cannot be empty")
        yield from _check_text_match(where, each)


def _check_text_match(path: str, match: TextMatch) -> Iterator[Violation]:
    chosen = match.model_dump(exclude_none=True)
    if not chosen:
        # "split" for "prefix" is Kuma's slip; the message is compared word for word.
        yield Violation(path, 'cannot be empty. Available options: "exact", "split" or "regex"')
    yield from _check_one(path, chosen)
    if match.prefix == "":
        yield Violation(f"{path}.prefix", "cannot be empty")
    if match.regex == "":
        yield Violation(f"{path}.regex", "cannot be empty")


def _check_modify(path: str, rule: HttpRule) -> Iterator[Violation]:
    modify = rule.modify
    if modify is None:
        return
    if modify.path is not None:
        yield from _check_path(f"{path}.path", modify.path, rule.match)
    if modify.host is not None:
        yield from _check_host(f"{path}.host", modify.host)
    yield from _check_headers(f"{path}.requestHeaders", modify.request_headers)
    yield from _check_headers(f"{path}.responseHeaders", modify.response_headers)


def _check_path(path: str, change: PathChange, match: Match | None) -> Iterator[Violation]:
    chosen = change.model_dump(exclude_none=True, by_alias=True)
    if not chosen:
        yield Violation(path, 'either "rewritePrefix" or "regex" has to be set')
    yield from _check_one(path, chosen)
    if change.rewrite_prefix is not None:
        where = f"{path}.rewritePrefix"
        prefix = match.path.prefix if match is not None and match.path is not None else None
        if not change.rewrite_prefix:
            yield Violation(where, "cannot be empty")
        elif not prefix:
            yield Violation(where, "can only be set when .http.match.path.prefix is not empty")
    yield from _check_replacement(f"{path}.regex", change.regex)


def _check_host(path: str, change: HostChange) -> Iterator[Violation]:
    chosen = change.model_dump(exclude_none=True, by_alias=True)
    if not chosen:
        yield Violation(path, 'either "value" or "fromPath" has to be set')
    yield from _check_one(path, chosen)
    if change.value == "":
        yield Violation(f"{path}.value", "cannot be empty")
    yield from _check_replacement(f"{path}.fromPath", change.from_path)


def _check_replacement(path: str, replacement: Replacement | None) -> Iterator[Violation]:
    if replacement is None:
        return
    if not replacement.pattern:
        yield Violation(f"{path}.pattern", "cannot be empty")
    if not replacement.substitution:
        yield Violation(f"{path}.substitution", "cannot be empty")


def _check_headers(path: str, headers: HeaderChange | None) -> Iterator[Violation]:
    if headers is None:
        return
    for i, added in enumerate(headers.add):
        yield from _check_header_name(f"{path}.add[{i}].name", added.name)
        if not added.value:
            yield Violation(f"{path}.add[{i}].value", "cannot be empty")
    for i, removed in enumerate(headers.remove):
        yield from _check_header_name(f"{path}.remove[{i}].name", removed.name)


def _check_header_name(path: str, name: str) -> Iterator[Violation]:
    if not name:
        yield Violation(path, "cannot be empty")
    elif name.startswith(":") or name.lower() == "host":
        yield Violation(path, "host header and HTTP/2 pseudo-headers are not allowed to be modified")


def _check_load_balancer(path: str, balancer: LoadBalancer | None) -> Iterator[Violation]:
    if balancer is None:
        return
    yield from _check_one(path, balancer.model_dump(exclude_none=True, by_alias=True))
    if balancer.least_request is not None and balancer.least_request.choice_count == 1:
        yield Violation(f"{path}.leastRequest.choiceCount", "value must be greater than or equal to 2")
    ring = balancer.ring_hash
    if ring is None:
        return
    if ring.hash_function not in _HASH_FUNCTIONS:
        yield Violation(f"{path}.ringHash.hashFunction", "must have a valid hash function")
    for name, size in (("minRingSize", ring.min_ring_size), ("maxRingSize", ring.max_ring_size)):
        if size > RING_SIZE_MAX:
            yield Violation(f"{path}.ringHash.{name}", f"value must be less than or equal to {RING_SIZE_MAX}")
    if ring.max_ring_size and ring.min_ring_size > ring.max_ring_size:
        yield Violation(f"{path}.ringHash.minRingSize", "must not be greater than maxRingSize")


def _check_one(path: str, chosen: Mapping[str, object]) -> Iterator[Violation]:
    """A choice of protobuf's takes one value; Kuma refuses the document, here the field is named."""
    if len(chosen) > 1:
        names = " and ".join(f'"{name}"' for name in chosen)
        yield Violation(path, f"only one of {names} can be set")
