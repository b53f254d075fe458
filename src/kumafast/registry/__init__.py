"""What is true now: the live picture of each mesh, kept from the commits of the store.

In: commits. Out: immutable views, and the proxies that a change can touch. Never: Envoy messages, I/O.
"""
