"""Who has seen what: the xDS protocol as a pure state machine, and its shell on the network.

In: snapshots, requests of Envoys. Out: responses with only what changed. Never: where snapshots come from.
"""
