"""One policy, one file: what it changes in Envoy's messages. The files have the names of those in `resources/policies`.

In: a conf. Out: effects. Never: whom the conf is for.

A module says which `KIND` of resource it is about and has those of these functions that have a meaning for it, each
from a conf and a protocol to an `Effect` or several, or None where the messages are the same as without it:
`outbound` (the listener of an outbound), `destination` (its cluster), `inbound` (the listener and the local cluster),
`passthrough` (the listener of what is let through as it came).
One that says which endpoints are near has `view`, from a conf, the client's zone and its tags to a `View`.
A kind that is about a proxy as a whole may have these too, each from a conf alone:
`proxy` (parts that the proxy has beside all others), `modifications` (what changes in its finished resources).
"""
