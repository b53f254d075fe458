"""VirtualOutbound: by which names and ports workloads behind a transparent proxy find what has some tags.

In: documents in Kuma's 2.14 form, tags of what is served. Out: `VirtualOutbound`, frozen, the rules that it breaks, and
the host, port and tags that it makes of an inbound's. Never: an address for a host, or who listens there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from kumafast.errors import Violation
from kumafast.resources.connection_policy import Selector, check_selectors
from kumafast.resources.fields import Text
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import is_domain, is_tag_name

_NAME = re.compile(r"[a-zA-Z0-9]+")
# Of Go's templates this much: the value of a parameter, and blanks that are cut off on either side.
_ACTION = re.compile(r"(?P<before>\s*\{\{-\s|\{\{)(?P<body>.*?)(?P<after>\s-\}\}\s*|\}\})", re.DOTALL)
_FIELD = re.compile(r"\s*\.([a-zA-Z_][a-zA-Z0-9_]*)\s*")
_FUNCTION = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_PORT_MAX = 65535


class TemplateError(ValueError):
    """A template that cannot be read, or that makes no host or port of some tags; says why as Kuma does."""


class Parameter(Frozen):
    """A value that templates name: that of a tag."""

    name: Text = ""
    tag_key: Text = ""
    """The tag; empty where it is called like the parameter."""

    @property
    def tag(self) -> str:
        """The tag whose value it has."""
        return self.tag_key or self.name


class Conf(Frozen):
    """Templates, and the values that they may name."""

    host: Text = ""
    port: Text = ""
    parameters: tuple[Parameter, ...] = ()


class NamedPort(NamedTuple):
    """A port of a host that leads to endpoints with all of the tags."""

    host: str
    port: int
    tags: tuple[tuple[str, str], ...]


class VirtualOutbound(Resource):
    """Names for what inbounds with some tags serve.

    >>> conf = {"host": "{{.name}}.mesh", "port": "80", "parameters": [{"name": "name", "tagKey": "kuma.io/service"}]}
    >>> VirtualOutbound(name="all", conf=conf).address_of({"kuma.io/service": "web", "version": "1"})
    NamedPort(host='web.mesh', port=80, tags=(('kuma.io/service', 'web'),))
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="VirtualOutbound",
        scope=Scope.MESH,
        path="virtual-outbounds",
        singular="Virtual Outbound",
        plural="Virtual Outbounds",
        is_in_federation=True,
        is_called_policy=True,
    )

    selectors: tuple[Selector, ...] = ()
    conf: Conf | None = None

    def address_of(self, tags: Mapping[str, str]) -> NamedPort:
        """By which host and port an inbound with these tags is found, and what else is. Raises `TemplateError`."""
        parameters = () if self.conf is None else self.conf.parameters
        chosen = {parameter.tag: tags[parameter.tag] for parameter in parameters if parameter.tag in tags}
        return NamedPort(self.host_of(tags), self.port_of(tags), tuple(sorted(chosen.items())))

    def host_of(self, tags: Mapping[str, str]) -> str:
        """The host for some tags. Raises `TemplateError`."""
        text = self._evaluate("" if self.conf is None else self.conf.host, tags)
        if not is_domain(text):
            raise TemplateError(
                f"evaluation of template with parameters didn't return a valid dns name result={_quoted(text)}"
            )
        return text

    def port_of(self, tags: Mapping[str, str]) -> int:
        """The port for some tags. Raises `TemplateError`."""
        text = self._evaluate("" if self.conf is None else self.conf.port, tags)
        if not _NUMBER.fullmatch(text):
            raise TemplateError(
                f"evaluation of template with parameters didn't evaluate to a parsable number result={_quoted(text)}"
            )
        port = int(text)
        if not 1 <= port <= _PORT_MAX:
            raise TemplateError(
                f"evaluation of template returned a port outside of the range [1..{_PORT_MAX}] result={port}"
            )
        return port

    def _evaluate(self, template: str, tags: Mapping[str, str]) -> str:
        parameters = () if self.conf is None else self.conf.parameters
        values = {parameter.name: tags[parameter.tag] for parameter in parameters if parameter.tag in tags}

        def value(action: re.Match[str]) -> str:
            field = _FIELD.fullmatch(action["body"])
            if field is None:
                raise _unreadable(action["body"])
            # What a map of texts does not hold is no text in Go's templates.
            return values.get(field[1], "")

        text = _ACTION.sub(value, template)
        literal = _ACTION.sub("", template)
        if "{{" in literal:
            raise _unreadable(literal.partition("{{")[2])
        return text

    def violations(self) -> Iterator[Violation]:
        """Every rule of virtual outbounds that this one breaks, in the order of Kuma's checks."""
        yield from check_selectors("selectors", self.selectors)
        if self.conf is None:
            yield Violation("conf", "has to be defined")
            return
        yield from _check_parameters("conf.parameters", self.conf.parameters)
        for field, template, sample in (("host", self.conf.host, "dummy"), ("port", self.conf.port, "1")):
            if not template:
                yield Violation(f"conf.{field}", "has to be defined")
                continue
            tags = {parameter.tag: sample for parameter in self.conf.parameters}
            try:
                (self.host_of if field == "host" else self.port_of)(tags)
            except TemplateError as error:
                yield Violation(f"conf.{field}", f"template pre evaluation failed with error='{error}'")


def _check_parameters(path: str, parameters: tuple[Parameter, ...]) -> Iterator[Violation]:
    names: set[str] = set()
    for i, parameter in enumerate(parameters):
        name = f"{path}[{i}].name"
        if parameter.name in names:
            yield Violation(name, "name is already used")
        names.add(parameter.name)
        if parameter.tag_key and not is_tag_name(parameter.tag_key):
            yield Violation(f"{path}[{i}].tagKey", "must be a valid tag name")
        if not parameter.tag_key and not is_tag_name(parameter.name):
            yield Violation(name, "must be a valid tag name if you are not setting tagKey")
        if not _NAME.fullmatch(parameter.name):
            yield Violation(name, "must consist of alphanumeric characters to be used as a gotemplate key")
    if not any(parameter.tag_key == SERVICE_TAG for parameter in parameters):
        yield Violation(path, f"must contain a parameter with {SERVICE_TAG} as a tagKey")


def _unreadable(body: str) -> TemplateError:
    function = _FUNCTION.match(body)
    reason = f'function "{function[1]}" not defined' if function else f"unexpected {_quoted(body.strip())} in command"
    return TemplateError(f"failed compiling gotemplate error={_quoted(f'template: :1: {reason}')}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
