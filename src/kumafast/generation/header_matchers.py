"""Conditions on headers, as Envoy's routes and retries have them.

In: a condition as a policy writes it. Out: a `HeaderMatcher`. Never: where it is asked.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2

from kumafast.resources.header_match import HeaderMatch


def header_matcher(header: HeaderMatch) -> route_components_pb2.HeaderMatcher:
    """The condition that a header has a value, is there, or is not."""
    matcher = route_components_pb2.HeaderMatcher(name=header.name)
    match header.type:
        case "Exact":
            matcher.string_match.exact = header.value
        case "Prefix":
            matcher.string_match.prefix = header.value
        case "RegularExpression":
            matcher.string_match.safe_regex.regex = header.value
        case "Present" | "Absent":
            matcher.present_match = header.type == "Present"
    return matcher
