"""The HTTP API, the bootstrap and the diagnostics, in the forms of Kuma 2.14.

In: HTTP requests. Out: calls of the store, JSON. Never: xDS.
"""
