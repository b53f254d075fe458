"""Filters of requests: where among the others they stand.

In: a name, a configuration. Out: `HttpFilter` messages. Never: what a filter does.
"""

from __future__ import annotations

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.message import Message

from kumafast.generation import fields


def http_filter(name: str, config: Message) -> http_connection_manager_pb2.HttpFilter:
    """A filter with its configuration."""
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=fields.packed(config))


def add_before_router(manager: http_connection_manager_pb2.HttpConnectionManager, name: str, config: Message) -> None:
    """Have a filter look at requests after all others that are there, but before they are sent on."""
    manager.http_filters.insert(len(manager.http_filters) - 1, http_filter(name, config))
