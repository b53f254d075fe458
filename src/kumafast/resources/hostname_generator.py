"""HostnameGenerator: by which host names workloads find services, made from a template.

In: documents in Kuma's 2.14 form, services. Out: `HostnameGenerator`, frozen, the rules that it breaks, those that are
there from the start, and the host name that it makes of a service. Never: whether a host name is taken already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.defaults import ORIGIN_LABEL, ZONE_LABEL
from kumafast.resources.fields import Loose, Text
from kumafast.resources.label_selector import LabelSelector
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.target_ref_policy import DISPLAY_NAME_LABEL, NAMESPACE_LABEL

# Of Go's templates this much: fields, `label "key"`, and blanks that are cut off on either side.
_ACTION = re.compile(r"(?P<before>\s*\{\{-\s|\{\{)(?P<body>.*?)(?P<after>\s-\}\}\s*|\}\})", re.DOTALL)
_FIELD = re.compile(r"\s*\.(Name|DisplayName|Namespace|Mesh|Zone)\s*")
_LABEL = re.compile(r'\s*label\s+("(?:[^"\\]|\\.)*"|`[^`]*`)\s*')
_FUNCTION = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)")
_UNKNOWN_FIELD = re.compile(r"\s*\.([a-zA-Z_][a-zA-Z0-9_]*)\s*")
_BAD = re.compile(r"[^\w\s.\"'`|()$:=,+*/<>!&-]")


class HostnameError(ValueError):
    """A template that makes no host name of a service; says why as Kuma does."""


class GeneratorSelector(Frozen):
    """Which services, of one of three kinds."""

    mesh_service: LabelSelector | None = None
    mesh_external_service: LabelSelector | None = None
    mesh_multi_zone_service: LabelSelector | None = None

    def of_kind(self, kind: str) -> LabelSelector | None:
        """The selector for services of a kind; None where the generator is not for them."""
        match kind:
            case "MeshService":
                return self.mesh_service
            case "MeshExternalService":
                return self.mesh_external_service
            case _:
                return self.mesh_multi_zone_service


class GeneratorExtension(Frozen):
    """What another program makes of it; kumafast knows none."""

    type: Text = ""
    config: Loose | None = None


class HostnameGeneratorSpec(Frozen):
    """Which services, and the template of their host names."""

    selector: GeneratorSelector = GeneratorSelector()
    template: Text = ""
    extension: GeneratorExtension | None = None


class HostnameGenerator(Resource):
    """Host names for services.

    >>> spec = {"selector": {"meshService": {}}, "template": "{{ .DisplayName }}.svc.mesh.local"}
    >>> HostnameGenerator(name="local", spec=spec).hostname(name="web", mesh="default", labels={})
    'web.svc.mesh.local'
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="HostnameGenerator",
        scope=Scope.GLOBAL,
        path="hostnamegenerators",
        singular="Hostname Generator",
        plural="Hostname Generators",
        short_name="hg",
        is_in_federation=True,
    )

    spec: HostnameGeneratorSpec = HostnameGeneratorSpec()

    def hostname(self, *, name: str, mesh: str, labels: Mapping[str, str]) -> str:
        """The host name of a service with this name and these labels. Raises `HostnameError`."""
        values = {
            "Name": name,
            "DisplayName": labels.get(DISPLAY_NAME_LABEL, name),
            "Namespace": labels.get(NAMESPACE_LABEL, ""),
            "Mesh": mesh,
            "Zone": labels.get(ZONE_LABEL, ""),
        }

        def value(action: re.Match[str]) -> str:
            if field := _FIELD.fullmatch(action["body"]):
                return values[field[1]]
            label = _LABEL.fullmatch(action["body"])
            if label is None:
                raise HostnameError(_failure(f"cannot evaluate {action['body'].strip()}"))
            key = _unquoted(label[1])
            if key not in labels:
                raise HostnameError(_failure(f"label {key} not found"))
            return labels[key]

        return _ACTION.sub(value, self.spec.template)

    def violations(self) -> Iterator[Violation]:
        """Every rule of generators that this one breaks, in the order of Kuma's checks."""
        spec, selector = self.spec, self.spec.selector
        given = (selector.mesh_service, selector.mesh_external_service, selector.mesh_multi_zone_service)
        if sum(each is not None for each in given) != 1:
            message = "exact one selector (meshService, meshExternalService) must be defined"
            yield Violation("spec.selector", message)
        if not spec.template and spec.extension is None:
            yield Violation("spec.template", "must not be empty")
        reason = _fault(spec.template)
        if reason:
            yield Violation("spec.template", f"couldn't parse template: template: :1: {reason}")
        if spec.extension is not None and not spec.extension.type:
            yield Violation("spec.extension.type", "must not be empty")


def initial_generators() -> tuple[HostnameGenerator, ...]:
    """Those of a zone on Universal, from the start: for its own services, and for those outside."""
    local = {"matchLabels": {ORIGIN_LABEL: "zone"}}
    templates = (
        ("local-mesh-external-service", "meshExternalService", "{{ .DisplayName }}.extsvc.mesh.local"),
        ("local-universal-mesh-service", "meshService", "{{ .DisplayName }}.svc.mesh.local"),
    )
    return tuple(
        HostnameGenerator.model_validate({"name": name, "spec": {"selector": {kind: local}, "template": template}})
        for name, kind, template in templates
    )


def _unquoted(literal: str) -> str:
    if literal.startswith("`"):
        return literal[1:-1]
    try:
        text: str = json.loads(literal)
    except ValueError:
        raise HostnameError(_failure(f"cannot read {literal}")) from None
    return text


def _fault(template: str) -> str:
    """Why a template cannot be read; nothing where it can."""
    if "{{" in _ACTION.sub("", template):
        return "unclosed action"
    for action in _ACTION.finditer(template):
        body = action["body"]
        if _FIELD.fullmatch(body) or _LABEL.fullmatch(body):
            continue
        if bad := _BAD.search(body):
            return f"bad character U+{ord(bad[0]):04X} '{bad[0]}'"
        if not body.strip():
            return "missing value for command"
        if field := _UNKNOWN_FIELD.fullmatch(body):
            # Go finds that out when it makes a name; here nothing is stored of which no name can come.
            return f"can't evaluate field {field[1]}"
        function = _FUNCTION.match(body)
        known = function is not None and function[1] == "label"
        if function and not known:
            return f'function "{function[1]}" not defined'
        return f"unexpected {json.dumps(body.strip(), ensure_ascii=False)} in command"
    return ""


def _failure(reason: str) -> str:
    return f'pre evaluation of template with parameters failed with error="template: :1: {reason}"'
