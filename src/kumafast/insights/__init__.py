"""What the proxies told us: who is connected, what was sent, taken and refused.

In: events of streams. Out: what stands with each client, `DataplaneInsight` resources and the state of inbounds in
coalesced batches, and who has converged.
Never: what to send.
"""

from kumafast.insights.clients import Answer, Clients, ClientStatus, TypeStatus
from kumafast.insights.convergence import Convergence, ConvergenceReport, Rejection
from kumafast.insights.health import HealthDefaults, WorkloadHealth
from kumafast.insights.insights import Insights

__all__ = [
    "Answer",
    "ClientStatus",
    "Clients",
    "Convergence",
    "ConvergenceReport",
    "HealthDefaults",
    "Insights",
    "Rejection",
    "TypeStatus",
    "WorkloadHealth",
]
