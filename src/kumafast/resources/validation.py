"""The rules that kinds of resources share: names, ports, addresses, tags.

In: values and the path of the field that they stand in. Out: violations, in the order of the rules.
Never: structure (a resource that is validated has the right shape already), or rules of one kind alone.

Paths are written `a.b[0].c["key"]`. Messages are Kuma 2.14's, word for word: clients show and compare them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from kumafast.errors import Violation
from kumafast.resources.resource import Resource, Scope
from kumafast.resources.tags import PROTOCOL_TAG, PROTOCOLS, SERVICE_TAG

_NAME_LENGTH_MAX = 253
_PORT_MAX = 65535

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SUBDOMAIN_MESSAGE = (
    "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character"
)
_MESH_NAME = re.compile(r"[0-9a-z\-_.]*")
_MESH_NAME_MESSAGE = (
    "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols."
)
_TAG_NAME = re.compile(r"[a-zA-Z0-9.\-_:/]*")
_TAG_NAME_MESSAGE = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
_TAG_VALUE = re.compile(r"[a-zA-Z0-9.\-_:]*")
_TAG_VALUE_MESSAGE = "tag value must consist of alphanumeric characters, dots, dashes and underscores"
_SELECTOR_VALUE = re.compile(r"[a-zA-Z0-9.\-_:/]*|\*")
_SELECTOR_VALUE_MESSAGE = (
    'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"'
)
_DOMAIN = re.compile(r"(?=.{1,255}$)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})?)*\.?")
_PROTO_DURATION = re.compile(r"-?[0-9]+(\.[0-9]{1,9})?s")


def validate(resource: Resource) -> tuple[Violation, ...]:
    """All rules that a resource breaks: those of its name and mesh first, then those of its kind, in Kuma's order."""
    return tuple(_violations(resource))


def _violations(resource: Resource) -> Iterator[Violation]:
    yield from check_name("name", resource.name)
    if resource.type.scope is Scope.MESH:
        yield from check_mesh("mesh", resource.mesh)
    yield from resource.violations()


def key_of(path: str, key: str) -> str:
    """The path of one entry of a map."""
    return f"{path}[{json.dumps(key, ensure_ascii=False)}]".encode("utf-8", "replace").decode()


def check_name(path: str, name: str) -> Iterator[Violation]:
    """A resource's name is a lowercase RFC 1123 subdomain."""
    yield from _check_identifier(path, name, _SUBDOMAIN, _SUBDOMAIN_MESSAGE)


def check_mesh(path: str, mesh: str) -> Iterator[Violation]:
    """A reference to a mesh may name one from before names were strict, so `_` is allowed."""
    yield from _check_identifier(path, mesh, _MESH_NAME, _MESH_NAME_MESSAGE)


def _check_identifier(path: str, text: str, pattern: re.Pattern[str], message: str) -> Iterator[Violation]:
    if not text:
        yield Violation(path, "cannot be empty")
    elif len(text.encode("utf-8", "surrogatepass")) > _NAME_LENGTH_MAX:
        yield Violation(path, "value length must less or equal 253")
    elif not pattern.fullmatch(text):
        yield Violation(path, message)


def check_port(path: str, port: int) -> Iterator[Violation]:
    """A TCP port."""
    if not 1 <= port <= _PORT_MAX:
        yield Violation(path, "port must be in the range [1, 65535]")


def is_ip(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address without a zone."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_domain(text: str) -> bool:
    """Whether a text can be looked up in the DNS; an IP address that is out of range is not a domain name."""
    return _DOMAIN.fullmatch(text) is not None and not _is_dotted_number(text)


def _is_dotted_number(text: str) -> bool:
    # The last label of a name is never a number, so `10.0.0.300` is a mistyped address and not a name.
    return text.rstrip(".").rpartition(".")[2].isdigit()


def check_ip(path: str, address: str, *, field: str = "address") -> Iterator[Violation]:
    """An IP address, or nothing."""
    if address and not is_ip(address):
        yield Violation(path, f"{field} has to be valid IP address")


def is_tag_name(text: str) -> bool:
    """Whether a tag may be called so; an empty text passes here, as in Kuma."""
    return _TAG_NAME.fullmatch(text) is not None


def check_tags(path: str, tags: Mapping[str, str], *, requires_service: bool = False) -> Iterator[Violation]:
    """Names and values of tags; entries are checked in the order of their names."""
    yield from _check_entries(path, tags, _TAG_VALUE, _TAG_VALUE_MESSAGE)
    if requires_service and SERVICE_TAG not in tags:
        yield Violation(path, f'mandatory tag "{SERVICE_TAG}" is missing')


def check_selector(path: str, match: Mapping[str, str]) -> Iterator[Violation]:
    """One selector: tags whose values may also be `*`, at least one of them."""
    if not match:
        yield Violation(path, "must have at least one tag")
    yield from check_selector_entries(path, match)


def check_selector_entries(path: str, match: Mapping[str, str]) -> Iterator[Violation]:
    """Names and values of a selector's tags, in the order of their names; none at all is fine here."""
    yield from _check_entries(path, match, _SELECTOR_VALUE, _SELECTOR_VALUE_MESSAGE)


def _check_entries(path: str, tags: Mapping[str, str], values: re.Pattern[str], message: str) -> Iterator[Violation]:
    for name in sorted(tags):
        where = key_of(path, name)
        if not name:
            yield Violation(path, "tag name must be non-empty")
        if not _TAG_NAME.fullmatch(name):
            yield Violation(where, _TAG_NAME_MESSAGE)
        if not tags[name]:
            yield Violation(where, "tag value must be non-empty")
        if not values.fullmatch(tags[name]):
            yield Violation(where, message)


def check_protocol(path: str, tags: Mapping[str, str]) -> Iterator[Violation]:
    """The protocol tag has a known value."""
    protocol = tags.get(PROTOCOL_TAG)
    if protocol is not None and protocol not in PROTOCOLS:
        yield Violation(
            key_of(path, PROTOCOL_TAG),
            f'tag "{PROTOCOL_TAG}" has an invalid value {json.dumps(protocol, ensure_ascii=False)}. '
            f"Allowed values: {', '.join(PROTOCOLS)}",
        )


def check_proto_duration(path: str, duration: str) -> Iterator[Violation]:
    """A duration in protobuf's JSON form (`10s`, `0.5s`) that is more than zero."""
    if not _PROTO_DURATION.fullmatch(duration):
        yield Violation(path, "must have a valid value")
    elif float(duration[:-1]) <= 0:
        yield Violation(path, "must have a positive value")
