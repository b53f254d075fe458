"""Parts of what a proxy sends, with what the policies that bind it change in them.

In: parts as they are without policies, bindings. Out: the same parts with effects. Never: where they lead.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import TypeVar

from kumafast.generation.effects import Source
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import Destination, HttpRule, Outbound, RequestRule, TransparentProxy
from kumafast.layers import with_proxy
from kumafast.matching import PASS_THROUGH, Bindings, Subject

_Towards = TypeVar("_Towards", Outbound, Destination)


def with_effects(part: _Towards, bindings: Bindings, subject: str | Subject, name: str) -> _Towards:
    """A part with the effects of what is said of its service, as that kind of part has them."""
    found = effects(with_proxy(bindings.outbound(subject), bindings), name, part.protocol)
    return replace(part, effects=found) if found else part


def listening(part: Outbound, bindings: Bindings, subject: str | Subject) -> Outbound:
    """A listener with its effects, and those that policies about single routes have on the requests of these."""
    part = with_effects(part, bindings, subject, "outbound")
    if part.route is None:
        return part
    rules = tuple(_ruled(rule, part, bindings, subject) for rule in part.route.rules)
    return part if rules == part.route.rules else replace(part, route=replace(part.route, rules=rules))


def _ruled(
    rule: RequestRule | HttpRule, part: Outbound, bindings: Bindings, subject: str | Subject
) -> RequestRule | HttpRule:
    if not isinstance(rule, HttpRule) or not (own := bindings.of_route(rule.origin)):
        return rule
    # What is said of the route itself stands in the place of what that kind says of the service.
    settings = {setting.kind: setting for setting in (*bindings.outbound(subject), *own)}
    found = effects(with_proxy(tuple(settings.values()), bindings), "outbound", part.protocol)
    return replace(rule, effects=found)


def sent_by(source: Source, part: Outbound) -> Outbound:
    """A listener that knows whose it is, where an effect needs to."""
    return replace(part, source=source) if any(effect.needs_source for effect in part.effects) else part


def let_through(part: TransparentProxy, bindings: Bindings, source: Source) -> TransparentProxy:
    """What takes redirected traffic, with the effects of what is said of that which is let through."""
    found = effects(with_proxy(bindings.outbound(PASS_THROUGH), bindings), "passthrough", "tcp")
    if not found:
        return part
    needs_source = any(effect.needs_source for effect in found)
    return replace(part, effects=found, source=source if needs_source else None)


def asks_of_senders(part: Outbound, bindings: Bindings, inside: Set[str]) -> Outbound:
    """The part with what policies for the services it leads to ask of who sends; what is outside learns nothing."""
    asking = [
        effect
        for service in sorted(inside - {part.service})
        for effect in effects(bindings.outbound(service), "outbound", part.protocol)
        if effect.asks_sender
    ]
    own = tuple(effect for effect in part.effects if inside or not effect.asks_sender)
    found = tuple(dict.fromkeys((*own, *asking)))
    return part if found == part.effects else replace(part, effects=found)


def of_sender(part: Outbound, sender: str) -> Outbound:
    """A listener whose effects say who sends."""
    return replace(part, effects=tuple(effect.said_by(sender) for effect in part.effects))
