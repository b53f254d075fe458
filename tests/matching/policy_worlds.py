"""Random policies and dataplanes that meet often: few names, few tags, few labels.

In: nothing. Out: Hypothesis strategies. Never: a policy that validation would refuse to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import strategies as st

from kumafast.matching import Bindings, compile_policies
from kumafast.registry.mesh_state import MeshState
from kumafast.registry.policies import Policies
from kumafast.registry.reach import Destination
from kumafast.registry.virtual_hosts import Naming
from kumafast.resources import Dataplane, Resource, parse

SERVICES = ("a", "b", "c")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def asked(dataplane: Dataplane) -> tuple[Destination, ...]:
    """What a dataplane's outbounds ask for where there are no services to refer to."""
    return MeshState(dataplane.mesh, Naming()).outbounds(dataplane)


def bindings_of(policies: Sequence[tuple[Resource, datetime]], dataplane: Dataplane) -> Bindings:
    """What stored policies are to a dataplane, by the way that every proxy's come to be."""
    indexed = Policies()
    indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
    for policy, created in policies:
        for position, compiled in enumerate(compile_policies(policy, created=created)):
            for _ in indexed.set_policy(policy.key._replace(name=f"{policy.name}#{position}"), compiled):
                pass
    return indexed.bindings(dataplane.name)


_services = st.sampled_from(SERVICES)
_versions = st.sampled_from(["1", "2"])
_zones = st.sampled_from(["east", "west"])
_limits = st.sampled_from(["1s", "2s", "3s"])
times = st.integers(0, 2).map(lambda hours: EPOCH + timedelta(hours=hours))


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dict with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


_labels = st.fixed_dictionaries(
    {},
    optional={
        "kuma.io/origin": st.sampled_from(["zone", "zone", "global"]),
        "kuma.io/zone": _zones,
        "k8s.kuma.io/namespace": st.sampled_from(["n1", "n2"]),
        "team": st.sampled_from(["x", "y"]),
    },
)
_policy_labels = st.fixed_dictionaries(
    {},
    optional={
        "kuma.io/origin": st.sampled_from(["zone", "zone", "global"]),
        "kuma.io/zone": _zones,
        "k8s.kuma.io/namespace": st.sampled_from(["n1", "n2"]),
        "kuma.io/policy-role": st.sampled_from(["system", "producer", "consumer", "workload-owner"]),
        "kuma.io/effect": st.sampled_from(["shadow", "", ""]),
    },
)
_tags = st.builds(lambda service, rest: {"kuma.io/service": service, **rest}, _services, _some(version=_versions))


_two_names = st.sampled_from(["dp-1", "dp-2"])


@st.composite
def dataplanes(draw: st.DrawFn, names: st.SearchStrategy[str] = _two_names) -> Dataplane:
    """A sidecar with up to two inbounds and any outbounds, or a gateway; one that is built in has neither."""
    gateway = draw(st.sampled_from([None, None, None, "DELEGATED", "BUILTIN"]))
    networking: dict[str, Any] = {"address": "10.0.0.1"}
    if gateway is not None:
        networking["gateway"] = {"type": gateway, "tags": draw(_tags)}
    else:
        sections = draw(st.lists(st.sampled_from(["", "web"]), max_size=2))
        networking["inbound"] = [
            {"port": 80 + number, "name": section, "tags": draw(_tags)} for number, section in enumerate(sections)
        ]
    services = [] if gateway == "BUILTIN" else draw(st.lists(_services, unique=True))
    networking["outbound"] = [
        {"port": 10_000 + number, "tags": {"kuma.io/service": service}} for number, service in enumerate(services)
    ]
    fields = {"name": draw(names), "mesh": "default", "labels": draw(_labels), "networking": networking}
    return cast(Dataplane, parse({"type": "Dataplane", **fields}))


_refs = st.one_of(
    _some(proxyTypes=st.lists(st.sampled_from(["Sidecar", "Gateway"]), unique=True)).map(
        lambda f: {"kind": "Mesh", **f}
    ),
    _some(version=_versions, **{"kuma.io/service": _services}).map(lambda tags: {"kind": "MeshSubset", "tags": tags}),
    _services.map(lambda name: {"kind": "MeshService", "name": name}),
    st.builds(
        lambda name, tags: {"kind": "MeshServiceSubset", "name": name, "tags": tags},
        _services,
        _some(version=_versions),
    ),
    st.builds(
        lambda who, section: {"kind": "Dataplane", **who, **section},
        st.one_of(
            st.sampled_from(["dp-1", "dp-2"]).map(lambda name: {"name": name}),
            st.sampled_from(["x", "y"]).map(lambda team: {"labels": {"team": team}}),
        ),
        _some(sectionName=st.sampled_from(["web", "80", "81"])),
    ),
    st.just({"kind": "MeshHTTPRoute", "name": "route"}),
)
_http = _some(requestTimeout=_limits, streamIdleTimeout=_limits)
_confs = _some(connectionTimeout=_limits, idleTimeout=_limits, http=_http)
_to_refs = st.one_of(
    st.just({"kind": "Mesh"}),
    _services.map(lambda name: {"kind": "MeshService", "name": name}),
    st.just({"kind": "MeshExternalService", "name": "a"}),
    st.just({"kind": "MeshHTTPRoute", "name": "route"}),
)


def _items(refs: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.builds(lambda ref, conf: {"targetRef": ref, "default": conf}, refs, _confs), max_size=2)


_matches = st.lists(
    st.one_of(
        st.sampled_from(["Exact", "Prefix"]).map(lambda type_: {"spiffeID": {"type": type_, "value": "spiffe://a"}}),
        st.just({"sni": {"type": "Exact", "value": "a"}}),
    ),
    max_size=1,
)
_rules = st.lists(st.builds(lambda matches, conf: {"matches": matches, "default": conf}, _matches, _confs), max_size=2)
_specs: st.SearchStrategy[Mapping[str, Any]] = st.one_of(
    st.builds(
        lambda top, to, from_: {**top, "to": to, "from": from_},
        _some(targetRef=_refs),
        _items(_to_refs),
        _items(st.just({"kind": "Mesh"})),
    ),
    st.builds(lambda top, rules: {**top, "rules": rules}, _some(targetRef=_refs), _rules),
)


def mesh_timeouts(names: st.SearchStrategy[str]) -> st.SearchStrategy[Resource]:
    """A MeshTimeout for anybody about anything."""
    return st.builds(
        lambda name, labels, spec: parse(
            {"type": "MeshTimeout", "mesh": "default", "name": name, "labels": labels, "spec": spec}
        ),
        names,
        _policy_labels,
        _specs,
    )


_stars = st.just("*")
_sources = st.one_of(
    st.just({}),
    st.builds(
        lambda service, rest: {"kuma.io/service": service, **rest},
        _services | _stars,
        _some(version=_versions | _stars),
    ),
)
_destinations: st.SearchStrategy[dict[str, str]] = st.one_of(
    (_services | _stars).map(lambda service: {"kuma.io/service": service}),
    st.just({}),
    st.just({"kuma.io/service": "a", "version": "1"}),
)


def _selectors(matches: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(matches.map(lambda match: {"match": match}), min_size=1, max_size=2)


def timeouts(names: st.SearchStrategy[str]) -> st.SearchStrategy[Resource]:
    """A Timeout between any services; also with selectors that no client matches and empty ones, of old stores."""
    return st.builds(
        lambda name, sources, destinations, limit: parse(
            {
                "type": "Timeout",
                "mesh": "default",
                "name": name,
                "sources": sources,
                "destinations": destinations,
                "conf": {"connectTimeout": limit},
            }
        ),
        names,
        _selectors(_sources),
        _selectors(_destinations),
        _limits,
    )
