"""`_config`: the snapshot of a connected proxy as JSON, and the patch to what it would be under shadow policies."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders
from tests.rest.fakes import Convergence, error, pipeline, services
from tests.rest.test_rest_rules import ECHO, WEB, get, mesh_timeout, put, timeout_to

from kumafast.identity.backends import create_builtin
from kumafast.reconciler import Reconciler
from kumafast.resources.mesh import CertificateAuthority
from kumafast.rest.api import create_api
from kumafast.rest.proxy_config import patch
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, LISTENER, SECRET
from kumafast.store import MemoryStore

CONFIG = "/meshes/default/dataplanes/web-1/_config"
METADATA = {"dataplane.admin.port": "9901", "features": ["feature-reuse-port"]}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def live(store: MemoryStore) -> AsyncIterator[tuple[httpx.AsyncClient, Reconciler]]:
    """A web that is connected, and an echo that it reaches."""
    reconciler, cache = pipeline(store)
    transport = httpx.ASGITransport(app=create_api(services(store, Convergence(), (reconciler, cache))))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681") as client:
        await put(client, ECHO)
        await put(client, WEB)
        await reconciler.load()
        reconciler.connect("stream-1", Node("default.web-1", metadata=METADATA))
        yield client, reconciler


@pytest.mark.anyio
async def test_the_configuration_of_a_proxy(live: tuple[httpx.AsyncClient, Reconciler]) -> None:
    shown = await get(live[0], CONFIG)
    assert list(shown) == ["xds"]
    assert list(shown["xds"][CLUSTER]) == sorted(shown["xds"][CLUSTER])
    assert shown["xds"][CLUSTER]["echo"]["edsClusterConfig"] == {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}
    (chain,) = shown["xds"][LISTENER]["inbound:127.0.0.1:17002"]["filterChains"]
    assert chain["filters"][0]["typedConfig"]["@type"].endswith("tcp_proxy.v3.TcpProxy")
    assert await get(live[0], f"{CONFIG}?shadow=false&include=diff") == {**shown, "diff": []}


@pytest.mark.anyio
async def test_shadow_policies_change_nothing_but_what_is_asked(
    live: tuple[httpx.AsyncClient, Reconciler],
) -> None:
    client, _ = live
    before = await get(client, CONFIG)
    shadow = mesh_timeout("dark", {"targetRef": {"kind": "Mesh"}, "to": [timeout_to("echo", connectionTimeout="77s")]})
    await put(client, {**shadow, "labels": {"kuma.io/effect": "shadow"}})
    assert await get(client, CONFIG) == before
    shown = await get(client, f"{CONFIG}?shadow=true&include=diff")
    path = f"/{CLUSTER.replace('/', '~1')}/echo/connectTimeout"
    was = before["xds"][CLUSTER]["echo"]["connectTimeout"]
    assert shown["diff"] == [
        {"op": "test", "path": path, "value": was},
        {"op": "remove", "path": path, "value": was},
        {"op": "add", "path": path, "value": "77s"},
    ]
    assert applied(before["xds"], shown["diff"]) == shown["xds"]
    # Looking leaves no trace.
    assert await get(client, CONFIG) == before
    assert "diff" not in await get(client, f"{CONFIG}?shadow=1")


@pytest.mark.anyio
async def test_secrets_are_not_shown(live: tuple[httpx.AsyncClient, Reconciler], store: MemoryStore) -> None:
    client, reconciler = live
    authority = CertificateAuthority(name="ca-1", type="builtin")
    for secret in create_builtin("default", authority, now=datetime.now(UTC)):
        await store.put(secret)
    backends = [{"name": "ca-1", "type": "builtin"}]
    await store.put(builders.mesh(mtls={"enabledBackend": "ca-1", "backends": backends}))
    await reconciler.load()
    while reconciler.publish_slice():
        pass
    shown = await get(client, CONFIG)
    assert shown["xds"][SECRET] == {name: {"name": name} for name in sorted(shown["xds"][SECRET])}
    assert len(shown["xds"][SECRET]) == 2
    assert "BEGIN" not in json.dumps(shown)


@pytest.mark.anyio
async def test_who_has_none(live: tuple[httpx.AsyncClient, Reconciler]) -> None:
    client, _ = live
    for query in ("", "?shadow=true&include=diff"):
        assert await get(client, f"/meshes/default/dataplanes/echo-1/_config{query}", 404) == error(
            404, "Failed to fetch dataplane insight", "Not found"
        )
        assert await get(client, f"/meshes/default/dataplanes/none/_config{query}", 404) == error(
            404, "Could not retrieve Dataplane", "Not found"
        )


@pytest.mark.anyio
@pytest.mark.parametrize(("query", "parameter"), [("shadow=trrrue", "shadow"), ("shadow=true&include=all", "include")])
async def test_queries_as_kuma_refuses_them(
    live: tuple[httpx.AsyncClient, Reconciler], query: str, parameter: str
) -> None:
    assert await get(live[0], f"{CONFIG}?{query}", 400) == error(
        400, "Bad Request", f"bad request: unsupported value for query parameter '{parameter}'"
    )


# True is 1 in Python; no field of Envoy is a number now and a truth value then.
_values = st.recursive(
    st.integers(2, 9) | st.sampled_from(["", "a", "/", "~1"]) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b/c", "d~e"]), inner),
    max_leaves=12,
)


@given(_values, _values)
def test_a_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    steps = list(patch(before, after))
    assert applied(before, steps) == after
    assert bool(steps) == (before != after)


def applied(value: Any, steps: list[dict[str, Any]]) -> Any:
    """What RFC 6902 makes of a value."""
    whole = {"": copy.deepcopy(value)}
    for step in steps:
        keys = ["", *(part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:])]
        parent: Any = whole
        for key in keys[:-1]:
            parent = parent[int(key) if isinstance(parent, list) else key]
        key = int(keys[-1]) if isinstance(parent, list) else keys[-1]
        if step["op"] == "test":
            assert parent[key] == step["value"]
        elif step["op"] == "remove":
            del parent[key]
        elif isinstance(parent, list):
            assert 0 <= key <= len(parent)
            parent.insert(key, step["value"])
        else:
            parent[key] = step["value"]
    return whole[""]
