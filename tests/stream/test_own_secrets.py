"""Each proxy is sent its own certificate and key: no byte of another's, however alike the two are."""

from __future__ import annotations

import asyncio

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from tests.pipeline import Pipeline, dataplane, put_mesh, secured, service
from tests.stream.memory_client import MemoryClient

from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import SECRET
from kumafast.store import MemoryStore
from kumafast.stream import XdsServer

IDENTITY = "identity_cert:secret:default"
INSTANCES = tuple(f"web-{number}" for number in range(12))


async def _secret_of(client: MemoryClient) -> secret_pb2.Secret:
    names = [IDENTITY, "mesh_ca:secret:default"]
    client.ask(SECRET, **{"resource_names_subscribe" if client.is_delta else "resource_names": names})
    response = await client.hear()
    bodies = [each.resource.value if client.is_delta else each.value for each in response.resources]
    secrets = {secret.name: secret for secret in map(secret_pb2.Secret.FromString, bodies)}
    assert secrets.keys() == set(names)
    return secrets[IDENTITY]


@pytest.mark.parametrize("method", ["DeltaAggregatedResources", "StreamAggregatedResources"])
def test_instances_that_differ_in_their_names_alone_get_keys_of_their_own(method: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        # So long that all of them are in one period.
        await put_mesh(store, secured(life="3000d"))
        for name in INSTANCES:
            await store.put(dataplane(name, tags=service("web"), reaches=[service("web")]))
        async with Pipeline(store) as pipeline:
            server = XdsServer(pipeline.cache)
            for name in INSTANCES:
                pipeline.reconciler.connect(name, Node(f"default.{name}"))
            clients = [MemoryClient(server, method=method, node_id=f"default.{name}") for name in INSTANCES]
            secrets = [await _secret_of(client) for client in clients]
            keys = {secret.tls_certificate.private_key.inline_bytes for secret in secrets}
            chains = {secret.tls_certificate.certificate_chain.inline_bytes for secret in secrets}
            assert (len(keys), len(chains)) == (len(INSTANCES), len(INSTANCES))
            for client in clients:
                client.lose()

    asyncio.run(main())
