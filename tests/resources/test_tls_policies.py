"""MeshTLS is refused in Kuma's words and comes back as written."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import parse, to_document, unknown_fields, validate

CIPHERS = ", ".join(
    f'"ECDHE-{key}-{cipher}"'
    for key in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
)
VERSIONS = '["TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13"]'
ONLY_MESH = "{} can only be defined with top level targetRef kind: Mesh"


def secured(conf: dict[str, Any], *, top: str = "Mesh", part: str = "from") -> dict[str, Any]:
    item = {"targetRef": {"kind": "Mesh"}, "default": conf} if part == "from" else {"default": conf}
    spec = {"targetRef": {"kind": top}, part: [item]}
    return {"type": "MeshTLS", "mesh": "default", "name": "t", "spec": spec}


def test_what_is_valid_comes_back_as_written() -> None:
    conf = {
        "mode": "Permissive",
        "tlsVersion": {"min": "TLS12", "max": "TLS13"},
        "tlsCiphers": ["ECDHE-RSA-AES256-GCM-SHA384"],
    }
    for part in ("from", "rules"):
        document = secured(conf, part=part)
        assert validate(parse(document)) == ()
        assert unknown_fields(document) == ()
        assert to_document(parse(document)) == document


@pytest.mark.parametrize("part", ["from", "rules"])
@pytest.mark.parametrize(
    ("conf", "top", "expected"),
    [
        ({"mode": "STRICT"}, "Mesh", [(".mode", '"mode" must be one of ["Strict", "Permissive"]')]),
        ({"tlsCiphers": ["a"]}, "Mesh", [(".tlsCiphers", f'"tlsCiphers" must be one of [{CIPHERS}]')]),
        (
            {"tlsVersion": {"min": "1.2", "max": "TLS14"}},
            "Mesh",
            [
                (".tlsVersion.min", f'"min" must be one of {VERSIONS}'),
                (".tlsVersion.max", f'"max" must be one of {VERSIONS}'),
            ],
        ),
        (
            {"tlsVersion": {"min": "TLS13", "max": "TLS12"}},
            "Mesh",
            [(".tlsVersion.min", "min version must be lower than max")],
        ),
        ({"tlsVersion": {"min": "TLS13", "max": "TLSAuto"}}, "Mesh", []),
        ({"tlsVersion": {"min": "TLS13", "max": "TLS13"}}, "Mesh", []),
        (
            {"mode": "on", "tlsVersion": {"min": "1.2"}, "tlsCiphers": ["a"]},
            "Dataplane",
            [
                (".mode", '"mode" must be one of ["Strict", "Permissive"]'),
                (".tlsCiphers", ONLY_MESH.format("tlsCiphers")),
                (".tlsVersion", ONLY_MESH.format("tlsVersion")),
            ],
        ),
        ({"mode": "Strict"}, "Dataplane", []),
    ],
)
def test_what_is_not_is_refused(part: str, conf: dict[str, Any], top: str, expected: list[tuple[str, str]]) -> None:
    found = validate(parse(secured(conf, top=top, part=part)))
    assert [(each.field, each.message) for each in found] == [
        (f"spec.{part}[0].default{field}", message) for field, message in expected
    ]
