"""Who sends a request: what a sidecar says of itself in a header, and conditions on that.

In: tags. Out: the header's value, matchers of it, the effect that has it sent. Never: anything that proves it; whoever
must not pretend to be another is kept out by permissions, which look at certificates.
Source of the form: Kuma 2.14's `x-kuma-tags`, `&key=value,other value&&other key=value&` with the keys sorted.

Only those clients send it of whom a policy may ask, so that all others go on sharing their listeners. What the
workload itself claims in the header is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from kumafast.generation import fields, names
from kumafast.generation.effects import Effect
from kumafast.generation.proxy import Tags

_ANY = "*"


def sender(tag_sets: Iterable[Mapping[str, str]]) -> str:
    """What a dataplane with these tags says of itself.

    >>> sender([{"kuma.io/service": "web", "version": "1"}, {"kuma.io/service": "web", "version": "2"}])
    '&kuma.io/service=web&&version=1,2&'
    """
    values: dict[str, set[str]] = {}
    for tags in tag_sets:
        for key, value in tags.items():
            values.setdefault(key, set()).add(value)
    return "".join(f"&{key}={','.join(sorted(values[key]))}&" for key in sorted(values))


def is_from(sources: Iterable[Tags]) -> route_components_pb2.HeaderMatcher:
    """The condition that whoever sends a request has all tags of one of the sources."""
    patterns = [_pattern(source) for source in sources]
    matcher = route_components_pb2.HeaderMatcher(name=names.KUMA_TAGS_HEADER)
    matcher.safe_regex_match.regex = patterns[0] if len(patterns) == 1 else f"({'|'.join(patterns)})"
    return matcher


def _pattern(source: Tags) -> str:
    # Unlike Kuma's, it takes whole values: a source `web` there is `my-web` too.
    conditions = (
        f"&{_literal(key)}=.*" if value == _ANY else f"&{_literal(key)}=([^&]*,)?{_literal(value)}[,&].*"
        for key, value in sorted(source)
    )
    return ".*" + "".join(conditions)


def _literal(text: str) -> str:
    # All else that a tag may consist of stands for itself.
    return text.replace(".", r"\.")


@dataclass(frozen=True, slots=True)
class NamesSender(Effect):
    """The client's sidecar says in each request whose it is."""

    asks_sender: ClassVar[bool] = True

    sender: str = ""

    def said_by(self, sender: str) -> Effect:
        """The effect in the listeners of one client."""
        return NamesSender(sender)

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Send the header."""
        if self.sender:
            header = fields.header(names.KUMA_TAGS_HEADER, self.sender, is_appended=False)
            manager.route_config.request_headers_to_add.append(header)
