"""Addresses in a running control plane: given before whoever waits for a write is told, kept, and shown to nobody."""

from __future__ import annotations

from pathlib import Path

import httpx
import uvloop
from tests.pipeline import dataplane, service
from tests.test_control_plane import settings
from tests.test_reconciler_names import redirected

from kumafast import ControlPlane


async def taken(control_plane: ControlPlane) -> dict[str, str]:
    """The addresses that are taken, by what has them."""
    found = {}
    for stored in await control_plane.list("VirtualIP"):
        found[stored.resource.model_dump()["holder_name"]] = stored.resource.name
    return found


def test_whoever_waits_for_a_write_waits_for_the_addresses_that_come_of_it(tmp_path: Path) -> None:
    async def main() -> dict[str, str]:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            await control_plane.put(dataplane("web-1", tags=service("web")))
            stored = await control_plane.put(redirected("client"))
            report = await control_plane.converged(stored.revision)
            assert (report.is_converged, report.revision) == (True, stored.revision)
            given = await taken(control_plane)
            assert set(given) == {"web", "client"}
            for number in range(3):
                stored = await control_plane.put(dataplane(f"db-{number}", tags=service(f"db-{number}")))
                await control_plane.converged(stored.revision)
                assert f"db-{number}" in await taken(control_plane)
            await control_plane.converged(await control_plane.delete("Dataplane", "web-1", mesh="default"))
            assert "web" not in await taken(control_plane)
            return {"web": given["web"], **await taken(control_plane)}

    async def again(before: dict[str, str]) -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            stored = await control_plane.put(dataplane("web-1", tags=service("web")))
            await control_plane.converged(stored.revision)
            assert await taken(control_plane) == before

    uvloop.run(again(uvloop.run(main())))


def test_addresses_are_no_resources_of_users(tmp_path: Path) -> None:
    async def main() -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane, httpx.AsyncClient() as client:
            stored = await control_plane.put(redirected("client"))
            await control_plane.converged(stored.revision)
            assert await taken(control_plane)
            api = control_plane.api_url
            assert (await client.get(f"{api}/meshes/default/virtual-ips")).status_code == 404
            kinds = (await client.get(f"{api}/_resources")).json()["resources"]
            assert "VirtualIP" not in {kind["name"] for kind in kinds}
            # A mesh can be deleted while addresses are in it: they go with it.
            await control_plane.delete("Dataplane", "client", mesh="default")
            await control_plane.delete("Mesh", "default")
            assert not await taken(control_plane)

    uvloop.run(main())
