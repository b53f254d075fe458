"""Who gets what: which inbounds an outbound reaches, which policies bind a dataplane and what they come to.

In: resources and compiled selectors. Out: choices. Never: Envoy messages, I/O, the store.
"""

from kumafast.matching.bindings import Bindings, Setting
from kumafast.matching.destinations import UNKNOWN, common_protocol, serving_inbounds
from kumafast.matching.facts import candidates
from kumafast.matching.policy import PASS_THROUGH, CompiledPolicy, compile_policies, compile_policy
from kumafast.matching.policy_set import PolicySet
from kumafast.matching.routing import Route

__all__ = [
    "PASS_THROUGH",
    "UNKNOWN",
    "Bindings",
    "CompiledPolicy",
    "PolicySet",
    "Route",
    "Setting",
    "candidates",
    "common_protocol",
    "compile_policies",
    "compile_policy",
    "serving_inbounds",
]
