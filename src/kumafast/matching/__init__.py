"""Who gets what: which inbounds an outbound reaches, later which policies bind which dataplanes.

In: resources and compiled selectors. Out: choices. Never: Envoy messages, I/O, the store.
"""

from kumafast.matching.destinations import UNKNOWN, common_protocol, serving_inbounds

__all__ = ["UNKNOWN", "common_protocol", "serving_inbounds"]
