"""What policies say of any service is worked out once for all services that none of them names."""

from __future__ import annotations

from tests.matching.policy_worlds import EPOCH, bindings_of

from kumafast.matching import Bindings
from kumafast.resources import Dataplane, Resource, parse

_EVERYBODY = {"kind": "Mesh"}


def _timeouts(name: str, **seconds: int) -> Resource:
    """One policy with an item for each service, `any` for all of them."""
    to = [
        {
            "targetRef": _EVERYBODY if service == "any" else {"kind": "MeshService", "name": service},
            "default": {"idleTimeout": f"{length}s"},
        }
        for service, length in seconds.items()
    ]
    spec = {"targetRef": _EVERYBODY, "to": to}
    return parse({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec})


def _bindings(*policies: Resource) -> Bindings:
    networking = {"address": "10.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]}
    dataplane = Dataplane.model_validate({"mesh": "default", "name": "web-1", "networking": networking})
    return bindings_of([(policy, EPOCH) for policy in policies], dataplane)


def _idle(bindings: Bindings, service: str) -> list[str]:
    return [setting.conf["idleTimeout"] for setting in bindings.outbound(service)]


def test_services_that_nobody_names_share_what_is_said() -> None:
    bindings = _bindings(_timeouts("one", a=2), _timeouts("other", any=1))
    assert bindings.outbound("b") is bindings.outbound("c")
    assert [_idle(bindings, service) for service in "abc"] == [["2s"], ["1s"], ["1s"]]


def test_a_policy_about_any_service_may_name_one_too() -> None:
    # It is noted under "any" alone.
    bindings = _bindings(_timeouts("all", any=1, b=3))
    assert [_idle(bindings, service) for service in "abc"] == [["1s"], ["3s"], ["1s"]]


def test_nothing_is_said_where_nobody_says_anything_of_any_service() -> None:
    bindings = _bindings(_timeouts("one", a=2))
    assert [_idle(bindings, service) for service in "ab"] == [["2s"], []]
