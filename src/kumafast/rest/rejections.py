"""What connected proxies refuse now, in Envoy's words, with the resources that these name and the policies in them.

What policies want and the control plane cannot make, so that a proxy is not sent it, stands among it.

In: refusals, who traces them. Out: JSON. Never: proxies that have gone; their insights keep what they last said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import json_response
from kumafast.rest.services import ApiServices, Rejection


async def documents(services: ApiServices, refused: Sequence[Rejection]) -> list[dict[str, Any]]:
    """Refusals as the API shows them."""
    causes = await services.trace(refused)
    return [
        {
            "node": refusal.node,
            "is_sent": refusal.failure is None,
            "type_url": refusal.type_url,
            "message": refusal.message,
            "resources": list(cause.resources),
            "policies": [key._asdict() for key in cause.policies],
        }
        for refusal, cause in zip(refused, causes, strict=True)
    ]


def rejections(services: ApiServices) -> Handler:
    """`GET /meshes/{mesh}/_rejections`."""

    async def show(request: Request) -> Response:
        """What the connected proxies of a mesh refuse now, and the policies that have a share in it."""
        mesh: str = request.path_params["mesh"]
        refused = [each for each in services.rejections() if each.node.startswith(f"{mesh}.")]
        items = await documents(services, refused)
        others = await services.siblings.ask(request)
        items += [item for document in others.documents for item in document["items"]]
        missing = {"missing": list(others.missing)} if others.missing else {}
        return json_response({"total": len(items), "items": items, **missing})

    return show
