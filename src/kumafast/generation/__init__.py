"""Envoy messages from a resolved proxy: pure functions of frozen values.

In: the parts of `proxy.py`. Out: protobuf messages. Never: settings, clocks, the store, encoding or versions.
"""
