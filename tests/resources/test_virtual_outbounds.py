"""Virtual outbounds are refused in Kuma's words, and make of an inbound's tags the host and port that they say."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import parse, to_document, validate
from kumafast.resources.virtual_outbound import NamedPort, TemplateError, VirtualOutbound

SERVICE = {"name": "srv", "tagKey": "kuma.io/service"}


def document(host: str = "{{.srv}}.mesh", port: str = "80", *parameters: dict[str, str]) -> dict[str, Any]:
    conf = {"host": host, "port": port, "parameters": list(parameters or (SERVICE,))}
    selectors = [{"match": {"kuma.io/service": "*"}}]
    return {"type": "VirtualOutbound", "mesh": "default", "name": "vo", "selectors": selectors, "conf": conf}


def outbound(*conf: Any) -> VirtualOutbound:
    resource = parse(document(*conf))
    assert isinstance(resource, VirtualOutbound)
    return resource


def test_makes_a_host_a_port_and_the_tags_that_it_names() -> None:
    parameters = (SERVICE, {"name": "version"}, {"name": "p", "tagKey": "kuma.io/port"})
    both = outbound("v{{ .version }}.{{.srv}}.mesh", "{{.p}}", *parameters)
    assert validate(both) == ()
    assert to_document(both) == document("v{{ .version }}.{{.srv}}.mesh", "{{.p}}", *parameters)
    tags = {"kuma.io/service": "web", "version": "2", "kuma.io/port": "8080", "region": "eu"}
    chosen = (("kuma.io/port", "8080"), ("kuma.io/service", "web"), ("version", "2"))
    assert both.address_of(tags) == NamedPort("v2.web.mesh", 8080, chosen)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("{{.srv}}.mesh", "web.mesh"),
        ("a {{- .srv -}} .mesh", "aweb.mesh"),
        ("{{.srv}}{{.srv}}", "webweb"),
        ("{{.nobody}}a.mesh", "a.mesh"),
        ("}}.mesh", None),
        ("{{.srv}} .mesh", None),
        ("{{.srv", None),
        ("{{if .srv}}a{{end}}", None),
        ("{{.srv.a}}", None),
    ],
)
def test_templates_are_go_s_as_far_as_values_go(host: str, expected: str | None) -> None:
    made = outbound(host)
    if expected is None:
        with pytest.raises(TemplateError):
            made.host_of({"kuma.io/service": "web"})
    else:
        assert made.host_of({"kuma.io/service": "web"}) == expected


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("a", 'evaluation of template with parameters didn\'t evaluate to a parsable number result="a"'),
        ("", 'evaluation of template with parameters didn\'t evaluate to a parsable number result=""'),
        ("0", "evaluation of template returned a port outside of the range [1..65535] result=0"),
        ("65536", "evaluation of template returned a port outside of the range [1..65535] result=65536"),
    ],
)
def test_an_inbound_that_gives_no_port_is_told_why(tag: str, reason: str) -> None:
    with pytest.raises(TemplateError) as refused:
        outbound("a.mesh", "{{.p}}", {"name": "p", "tagKey": "port"}).address_of({"port": tag})
    assert str(refused.value) == reason
