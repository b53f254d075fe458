"""From what policies say to what they change: every module of `generation/policies`, found by itself.

In: settings, each a kind of policy and its conf; the protocol of the part. Out: effects in the order of the settings.
Never: a list of policies to keep up by hand.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from kumafast.generation import policies
from kumafast.generation.effects import Collector, Effect
from kumafast.generation.host import Host
from kumafast.generation.localities import View
from kumafast.generation.modifications import Template
from kumafast.generation.proxy import Part, Tags
from kumafast.memo import remembered

_CACHE_SIZE = 16_384

_Maker: TypeAlias = Callable[..., Any]
_IN_PARTS = ("outbound", "destination", "inbound", "gateway", "route", "passthrough")


class Setting(Protocol):
    """What the policies of one kind come to; hashable."""

    @property
    def kind(self) -> str: ...

    @property
    def conf(self) -> Mapping[str, Any]: ...

    def __hash__(self) -> int: ...


def _makers() -> dict[tuple[str, str], _Maker]:
    found = {}
    for info in pkgutil.iter_modules(policies.__path__, prefix=f"{policies.__name__}."):
        module = import_module(info.name)
        for part in (*_IN_PARTS, "proxy", "on_host", "modifications", "view"):
            maker = getattr(module, part, None)
            if maker is not None:
                found[module.KIND, part] = maker
    for kind, part in tuple(found):
        if part == "outbound":
            # Rules of gateways are as outbounds, but for kinds that say otherwise.
            found.setdefault((kind, "route"), found[kind, part])
    return found


_MAKERS = _makers()


@remembered(_CACHE_SIZE)
def effects(settings: tuple[Setting, ...], part: str, protocol: str) -> tuple[Effect, ...]:
    """What settings change in a part: `outbound`, `destination`, `inbound`, `passthrough`; what a `gateway` takes in, a
    `route` by which it sends on."""
    made = [
        _MAKERS[setting.kind, part](setting.conf, protocol) for setting in settings if (setting.kind, part) in _MAKERS
    ]
    several = ((each,) if isinstance(each, Effect) else each or () for each in made)
    # What two kinds ask for alike is done once.
    return tuple(dict.fromkeys(effect for each in several for effect in each))


@remembered(_CACHE_SIZE)
def proxy_parts(settings: tuple[Setting, ...]) -> tuple[Part, ...]:
    """What a proxy has because of settings for it as a whole, beside its inbounds and outbounds."""
    made = (_MAKERS[setting.kind, "proxy"](setting.conf) for setting in settings if (setting.kind, "proxy") in _MAKERS)
    return tuple(part for parts in made for part in parts)


def host_parts(settings: tuple[Setting, ...], host: Callable[[], Host | None]) -> tuple[Part, ...]:
    """What a proxy has because of settings that ask where it runs: no other has the same, so nothing is kept of it.

    The host is asked for where there are such settings; None where nobody knows it.
    """
    makers = [(_MAKERS[each.kind, "on_host"], each.conf) for each in settings if (each.kind, "on_host") in _MAKERS]
    known = host() if makers else None
    return () if known is None else tuple(part for make, conf in makers for part in make(conf, known))


VIEWING = frozenset(kind for kind, part in _MAKERS if part == "view")
"""The kinds that say how clients see endpoints."""


@remembered(_CACHE_SIZE)
def view(settings: tuple[Setting, ...], zone: str, tags: Tags) -> View | None:
    """How a client with this zone and tags sees the endpoints of a service; None where all see them so."""
    for setting in settings:
        if setting.kind in VIEWING:
            found: View | None = _MAKERS[setting.kind, "view"](setting.conf, zone, dict(tags))
            return found
    return None


@remembered(_CACHE_SIZE)
def records(setting: Setting, *, is_inbound: bool = False) -> tuple[Effect, ...]:
    """The effects of a setting that handle what a proxy sends, or takes, in the proxy's own name."""
    parts = ("inbound",) if is_inbound else ("outbound", "passthrough")
    found = (effect for part in parts for effect in effects((setting,), part, "http"))
    return tuple(effect for effect in found if effect.needs_source)


def makes_template(kind: str) -> bool:
    """Whether policies of a kind change finished resources."""
    return (kind, "modifications") in _MAKERS


def collectors_of(part: Part) -> tuple[Collector, ...]:
    """Where a part reports to because of its effects, each once."""
    of_part: tuple[Effect, ...] = getattr(part, "effects", ())
    return tuple(dict.fromkeys(each for effect in of_part for each in effect.collectors))


@remembered(_CACHE_SIZE)
def template(settings: tuple[Setting, ...]) -> Template | None:
    """What becomes of a proxy's finished resources because of settings for it as a whole; None for nothing."""
    made: list[Template] = [
        _MAKERS[setting.kind, "modifications"](setting.conf)
        for setting in settings
        if (setting.kind, "modifications") in _MAKERS
    ]
    return reduce(Template.then, made) if made else None
