"""Who gets what: which inbounds an outbound reaches, which policies bind a dataplane and what they come to.

In: resources and compiled selectors. Out: choices. Never: Envoy messages, I/O, the store.
"""

from kumafast.matching.backends import Backend, BackendPort, Subject
from kumafast.matching.bindings import Bindings, Setting
from kumafast.matching.destinations import UNKNOWN, common_protocol, instance_inbounds, serving_inbounds
from kumafast.matching.facts import candidates, listener_candidates
from kumafast.matching.policy import PASS_THROUGH, CompiledPolicy, compile_policies, compile_policy
from kumafast.matching.policy_set import PolicySet
from kumafast.matching.routing import Route

__all__ = [
    "PASS_THROUGH",
    "UNKNOWN",
    "Backend",
    "BackendPort",
    "Bindings",
    "CompiledPolicy",
    "PolicySet",
    "Route",
    "Setting",
    "Subject",
    "candidates",
    "common_protocol",
    "compile_policies",
    "compile_policy",
    "instance_inbounds",
    "listener_candidates",
    "serving_inbounds",
]
