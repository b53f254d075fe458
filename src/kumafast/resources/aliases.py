"""Translate what Kuma 0.1.0 to 0.6 wrote into the form of 2.14.

In: the fields of a Mesh, Dataplane, ProxyTemplate or TrafficPermission as they came. Out: the same with old forms
replaced, or the very same object where there are none; `MalformedResourceError` where an old field has the wrong shape.
Never: a change of its argument, or a judgement of content: an interface that cannot be translated stays, and validation
reports it with everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kumafast.errors import MalformedResourceError, Violation
from kumafast.resources.tags import SERVICE_TAG

_SERVICE = "service"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_INBOUND_INTERFACE = re.compile(rf"({_IPV4}):([0-9]{{1,5}}):([0-9]{{1,5}})")
_OUTBOUND_INTERFACE = re.compile(rf"({_IPV4})?:([0-9]{{1,5}})")
_LOOPBACK = "127.0.0.1"
_PORT_MAX = 65535

BUILTIN_CA = "ca-1"
"""The name of the one backend that 0.1.0's `mtls.ca` becomes."""
ACCESS_LOG = "file-1"
"""The name of the one backend that 0.1.0's `logging.accessLogs` becomes."""

ACCESS_LOG_FORMAT = (
    "[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS%->%UPSTREAM_HOST% took %DURATION%ms, "
    "sent %BYTES_SENT% bytes, received: %BYTES_RECEIVED% bytes"
)
"""What 0.1.0 wrote for each connection; the end of the line is added to every format today."""

Fields = Mapping[str, Any]

DATAPLANE_NAMES = (b'"interface"', b'"service"', b'"redirectPort"', b"\\")
"""What stands in the JSON of all that `dataplane_fields` replaces: its keys, or an escape that may hide one; a single
byte is sought ten times as fast as two."""


def dataplane_fields(fields: Fields) -> Fields:
    """A dataplane with `interface`, the tag `service` and `redirectPort` replaced by what 2.14 calls them."""
    networking = fields.get("networking")
    if not isinstance(networking, Mapping):
        return fields
    new: dict[str, Any] = {}
    for name, translate in (("inbound", _inbound), ("outbound", _outbound)):
        items = networking.get(name)
        if isinstance(items, list | tuple):
            translated = [translate(item) if isinstance(item, Mapping) else item for item in items]
            if any(after is not before for after, before in zip(translated, items, strict=True)):
                new[name] = translated
    gateway = networking.get("gateway")
    if isinstance(gateway, Mapping) and (with_tag := _with_service_tag(gateway)) is not gateway:
        new["gateway"] = with_tag
    transparent = networking.get("transparentProxying")
    if isinstance(transparent, Mapping) and "redirectPort" in transparent:
        new["transparentProxying"] = _transparent(transparent)
    if not new:
        return fields
    if not networking.get("address") and (address := _first_interface_address(networking)):
        new["address"] = address
    return {**fields, "networking": {**networking, **new}}


def _first_interface_address(networking: Fields) -> str:
    for item in networking.get("inbound") or ():
        if isinstance(item, Mapping) and (parts := _parsed(item.get("interface"), _INBOUND_INTERFACE)) is not None:
            return parts[0]
    return ""


def _parsed(interface: object, grammar: re.Pattern[str]) -> tuple[str, ...] | None:
    """The parts of an interface, ports in range; None where it is not one."""
    if not isinstance(interface, str) or (match := grammar.fullmatch(interface)) is None:
        return None
    address, *ports = match.groups()
    if not all(1 <= int(port) <= _PORT_MAX for port in ports):
        return None
    return (address or "", *ports)


def _inbound(inbound: Fields) -> Fields:
    inbound = _with_service_tag(inbound)
    # Beside the fields that replaced it, an interface could contradict them; validation reports that.
    if "interface" not in inbound or any(inbound.get(name) for name in ("port", "servicePort", "address")):
        return inbound
    parts = _parsed(inbound["interface"], _INBOUND_INTERFACE)
    if parts is None:
        return inbound
    address, port, service_port = parts
    rest = {name: value for name, value in inbound.items() if name != "interface"}
    return {**rest, "address": address, "port": int(port), "servicePort": int(service_port)}


def _outbound(outbound: Fields) -> Fields:
    outbound = _with_service_tag(outbound)
    service, tags = outbound.get(_SERVICE), outbound.get("tags")
    if service is not None and service != "" and isinstance(tags, Mapping | None):
        rest = {name: value for name, value in outbound.items() if name != _SERVICE}
        outbound = {**rest, "tags": {SERVICE_TAG: service, **(tags or {})}}
    if "interface" not in outbound or any(outbound.get(name) for name in ("port", "address")):
        return outbound
    parts = _parsed(outbound["interface"], _OUTBOUND_INTERFACE)
    if parts is None:
        return outbound
    rest = {name: value for name, value in outbound.items() if name != "interface"}
    return {**rest, "address": parts[0] or _LOOPBACK, "port": int(parts[1])}


def _with_service_tag(tagged: Fields) -> Fields:
    tags = tagged.get("tags")
    # Beside `kuma.io/service`, a tag `service` is one of the user's own.
    if not isinstance(tags, Mapping) or _SERVICE not in tags or SERVICE_TAG in tags:
        return tagged
    return {**tagged, "tags": {SERVICE_TAG if key == _SERVICE else key: value for key, value in tags.items()}}


def _transparent(transparent: Fields) -> Fields:
    # 0.1.0 had one listener for all redirected traffic; its pass-through cluster is today's outbound one.
    rest = {name: value for name, value in transparent.items() if name != "redirectPort"}
    return {"redirectPortOutbound": transparent["redirectPort"], **rest}


def mesh_fields(fields: Fields) -> Fields:
    """A mesh with `mtls.enabled`, `mtls.ca` and `logging.accessLogs` replaced by backends."""
    mtls, logging = fields.get("mtls"), fields.get("logging")
    new: dict[str, Any] = {}
    # Beside today's fields, the old ones are unknown fields like any other.
    if (
        isinstance(mtls, Mapping)
        and mtls.keys() & {"enabled", "ca"}
        and not mtls.keys() & {"backends", "enabledBackend"}
    ):
        new["mtls"] = _mtls(mtls)
    if isinstance(logging, Mapping) and "accessLogs" in logging and "backends" not in logging:
        new["logging"] = _logging(logging)
    return {**fields, **new} if new else fields


def _mtls(mtls: Fields) -> Fields:
    rest = {name: value for name, value in mtls.items() if name not in ("enabled", "ca")}
    enabled, authority = mtls.get("enabled"), mtls.get("ca")
    _require("mtls.enabled", isinstance(enabled, bool | None), "must be true or false")
    _require("mtls.ca", isinstance(authority, Mapping | None), "must be an object")
    if not (enabled or authority):
        return rest
    kind, conf = next(iter(authority.items()), ("builtin", None)) if authority else ("builtin", None)
    backend = {"name": BUILTIN_CA, "type": kind, **({"conf": conf} if conf else {})}
    return {**rest, "backends": [backend], **({"enabledBackend": BUILTIN_CA} if enabled else {})}


def _require(path: str, is_right: bool, message: str) -> None:
    if not is_right:
        raise MalformedResourceError(f"{path}: {message}", [Violation(path, message)])


def _logging(logging: Fields) -> Fields:
    rest = {name: value for name, value in logging.items() if name != "accessLogs"}
    logs = {} if logging["accessLogs"] is None else logging["accessLogs"]
    _require("logging.accessLogs", isinstance(logs, Mapping), "must be an object")
    enabled, file_path = logs.get("enabled"), logs.get("filePath")
    _require("logging.accessLogs.enabled", isinstance(enabled, bool | None), "must be true or false")
    _require("logging.accessLogs.filePath", isinstance(file_path, str | None), "must be a string")
    if not enabled:
        return rest
    backend = {
        "name": ACCESS_LOG,
        "type": "file",
        "format": ACCESS_LOG_FORMAT,
        "conf": {"path": file_path or ""},
    }
    return {**rest, "backends": [backend], "defaultBackend": ACCESS_LOG}


def template_fields(fields: Fields) -> Fields:
    """A template with `imports` and `resources` moved into `conf`, and the tag `service` replaced."""
    new: dict[str, Any] = {}
    selectors = fields.get("selectors")
    if isinstance(selectors, list | tuple) and all(_is_selector(each) for each in selectors):
        translated = _selectors(selectors)
        if any(after is not before for after, before in zip(translated, selectors, strict=True)):
            new["selectors"] = translated
    # Beside today's field, the old ones are unknown fields like any other.
    inline = {name: fields[name] for name in ("imports", "resources") if name in fields}
    if not inline or "conf" in fields:
        return {**fields, **new} if new else fields
    rest = {name: value for name, value in fields.items() if name not in inline}
    return {**rest, **new, "conf": inline}


def _is_selector(selector: object) -> bool:
    return isinstance(selector, Mapping) and isinstance(selector.get("match"), Mapping | None)


def permission_fields(fields: Fields) -> Fields:
    """A permission with `rules` replaced by sources and destinations, as far as one pair of these says the same."""
    rules = fields.get("rules")
    if not isinstance(rules, list | tuple) or not rules or not all(_is_rule(rule) for rule in rules):
        return fields
    # Beside today's fields, the old one would be a second permission; validation reports that.
    if fields.get("sources") or fields.get("destinations"):
        return fields
    translated = [{name: _selectors(rule.get(name) or ()) for name in ("sources", "destinations")} for rule in rules]
    united = _united(_united(translated, "destinations", "sources"), "sources", "destinations")
    if len(united) == 1:
        rest = {name: value for name, value in fields.items() if name not in ("rules", "sources", "destinations")}
        return {**rest, **united[0]}
    return fields if united == rules else {**fields, "rules": united}


def _is_rule(rule: object) -> bool:
    """Whether a rule has the right shape as far as it is translated; the rest is reported with everything else."""
    return isinstance(rule, Mapping) and all(
        isinstance(selectors, list | tuple | None) and all(map(_is_selector, selectors or ()))
        for selectors in (rule.get("sources"), rule.get("destinations"))
    )


def _selectors(selectors: Sequence[Fields]) -> list[Fields]:
    return [_selector(selector) for selector in selectors]


def _selector(selector: Fields) -> Fields:
    match = selector.get("match")
    if match is None or _SERVICE not in match or SERVICE_TAG in match:
        return selector
    return {**selector, "match": {SERVICE_TAG if key == _SERVICE else key: value for key, value in match.items()}}


def _united(rules: Sequence[dict[str, list[Fields]]], same: str, other: str) -> list[dict[str, list[Fields]]]:
    """Rules with equal selectors on one side as one rule with all that they have on the other."""
    united: dict[str, dict[str, Fields]] = {}
    sides: dict[str, list[Fields]] = {}
    for number, rule in enumerate(rules):
        # A side without selectors breaks a rule, and must not vanish within another that has some.
        key = repr(rule[same]) if rule[other] else f"{number}"
        sides[key] = rule[same]
        united.setdefault(key, {}).update((repr(each), each) for each in rule[other])
    return [{same: sides[key], other: list(each.values())} for key, each in united.items()]
