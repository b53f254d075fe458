"""Services over the API: as users write them, and beside that what the control plane says of their instances."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests import builders
from tests.pipeline import put_mesh, secured

from kumafast.resources import DataplaneInsight, HostnameGenerator
from kumafast.resources.hostname_generator import initial_generators
from kumafast.resources.virtual_ip import Holder, VirtualIP
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

URL = "/meshes/default/meshservices/backend"
SPEC: dict[str, Any] = {
    "selector": {"dataplaneTags": {"app": "backend"}},
    "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
}
WRITTEN = {"type": "MeshService", "mesh": "default", "name": "backend", "labels": {"app": "x"}, "spec": SPEC}


def instance(name: str, service: str = "backend", **over: Any) -> Any:
    inbound = {"port": 8080, "tags": {"kuma.io/service": service, "app": "backend"}, **over}
    return builders.dataplane(name, inbound=[inbound])


async def test_a_service_is_shown_as_written_with_what_it_comes_to(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    assert (await client.put(URL, json={**WRITTEN, "status": {"vips": []}})).json() == {}
    shown = (await client.get(URL)).json()
    assert shown["spec"] == {**SPEC, "state": "Unavailable"}
    assert shown["kri"] == "kri_msvc_default_east__backend_"
    assert shown["status"] == {"tls": {"status": "NotReady"}, "dataplaneProxies": {}}
    online = {"id": "1", "connectTime": "2026-11-30T12:00:00Z"}
    for resource in (
        instance("b-1"),
        instance("b-2", "other"),
        instance("b-3", state="NotReady"),
        instance("aside", port=9),
        DataplaneInsight.model_validate({"mesh": "default", "name": "b-1", "subscriptions": [online]}),
    ):
        await store.put(resource)
    shown = (await client.get(URL)).json()
    identities = [{"type": "ServiceTag", "value": value} for value in ("backend", "other")]
    assert shown["spec"] == {**SPEC, "state": "Available", "identities": identities}
    assert shown["status"]["dataplaneProxies"] == {"connected": 1, "healthy": 2, "total": 4}
    for path in ("_dataplanes", "_resources/dataplanes"):
        found = (await client.get(f"{URL}/{path}")).json()
        assert ([each["name"] for each in found["items"]], found["total"]) == (["aside", "b-1", "b-2", "b-3"], 4)
        page = (await client.get(f"{URL}/{path}?size=1&offset=1&name=b-")).json()
        assert ([each["name"] for each in page["items"]], page["total"]) == (["b-2"], 3)
        assert "offset=2" in page["next"]
    assert (await client.get("/meshes/default/meshservices/none/_dataplanes")).status_code == 404
    assert (await client.get("/meshes/default/meshexternalservices/none/_hostnames")).status_code == 404
    [item] = (await client.get("/meshes/default/meshservices")).json()["items"]
    assert item == shown
    assert (await client.get("/_kri/kri_msvc_default_east__backend_")).json() == shown


async def test_the_address_and_the_names_of_a_service_are_shown(client: httpx.AsyncClient, store: MemoryStore) -> None:
    def generator(name: str, template: str) -> HostnameGenerator:
        spec = {"selector": {"meshService": {}}, "template": template}
        return HostnameGenerator.model_validate({"name": name, "spec": spec})

    local, again, unlabelled = "local-universal-mesh-service", "same-for-all", "unlabelled"
    await client.put("/meshes/default/meshservices/first", json={**WRITTEN, "name": "first"})
    await client.put(URL, json=WRITTEN)
    for resource in (
        *initial_generators(),
        generator(again, "same.local"),
        generator(unlabelled, "{{ label `none` }}.local"),
        VirtualIP.of("default", "241.0.0.7", Holder("MeshService", "backend")),
    ):
        await store.put(resource)
    status = (await client.get(URL)).json()["status"]
    assert status["vips"] == [{"ip": "241.0.0.7"}]
    ref = {"coreName": local}
    name = "backend.svc.mesh.local"
    assert status["addresses"] == [{"hostname": name, "origin": "HostnameGenerator", "hostnameGeneratorRef": ref}]
    [made] = [each["conditions"] for each in status["hostnameGenerators"] if each["hostnameGeneratorRef"] == ref]
    assert made == [{"type": "Generated", "status": "True", "reason": "Generated", "message": ""}]
    zones = [{"name": "east"}]
    names = (await client.get(f"{URL}/_hostnames")).json()
    assert names == {"items": [{"hostname": name, "zones": zones}], "total": 1}
    reasons = {
        each["hostnameGeneratorRef"]["coreName"]: (each["conditions"][0]["status"], each["conditions"][0]["reason"])
        for each in status["hostnameGenerators"]
    }
    assert reasons == {
        local: ("True", "Generated"),
        again: ("False", "Collision"),
        unlabelled: ("False", "TemplateError"),
    }


async def test_what_a_user_says_of_instances_does_not_count(client: httpx.AsyncClient) -> None:
    claims = {"state": "Available", "identities": [{"type": "ServiceTag", "value": "somebody"}]}
    assert (await client.put(URL, json={**WRITTEN, "spec": {**SPEC, **claims}})).status_code == 201
    shown = (await client.get(URL)).json()
    assert shown["spec"] == {**SPEC, "state": "Unavailable", "identities": []}


async def test_a_service_is_ready_for_tls_when_all_instances_have_certificates(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    async def status() -> str:
        found: str = (await client.get(URL)).json()["status"]["tls"]["status"]
        return found

    await client.put(URL, json=WRITTEN)
    await put_mesh(store, secured())
    for name in ("b-1", "b-2"):
        await store.put(instance(name))
        assert await status() == "NotReady"
        await store.put(DataplaneInsight(mesh="default", name=name, mTLS={"issuedBackend": "ca-1"}))
        assert await status() == "Ready"


async def test_the_others_are_written_shown_and_removed(client: httpx.AsyncClient) -> None:
    outside = {"match": {"port": 443}, "endpoints": [{"address": "example.com", "port": 443}]}
    several = {"selector": {"meshService": {"matchLabels": {"app": "x"}}}, "ports": [{"port": 80}]}
    for kind, path, spec in (
        ("MeshExternalService", "meshexternalservices", outside),
        ("MeshMultiZoneService", "meshmultizoneservices", several),
    ):
        url = f"/meshes/default/{path}/one"
        written = {"type": kind, "mesh": "default", "name": "one", "spec": spec}
        assert (await client.put(url, json=written)).status_code == 201
        assert (await client.get(url)).json()["spec"] == spec
        assert (await client.delete(url)).status_code == 200
    generator = {"selector": {"meshService": {}}, "template": "{{ .Name }}.mesh"}
    written = {"type": "HostnameGenerator", "name": "mine", "spec": generator}
    assert (await client.put("/hostnamegenerators/mine", json=written)).status_code == 201
    assert (await client.get("/hostnamegenerators/mine")).json()["spec"] == generator


async def test_all_that_is_wrong_is_said_at_once(client: httpx.AsyncClient) -> None:
    wrong = {**WRITTEN, "name": "other", "spec": {**SPEC, "ports": [{"port": 0}]}}
    answer = await client.put(URL, json=wrong)
    assert answer.status_code == 400
    fields = [each["field"] for each in answer.json()["invalid_parameters"]]
    assert fields == ["name", "spec.ports[0].port"]
    assert (await client.get(URL)).status_code == 404
