"""What the proxies told us: who is connected, what was sent, taken and refused.

In: events of streams. Out: `DataplaneInsight` resources in coalesced batches, and who has converged. Never: what to send.
"""

from kumafast.insights.convergence import Convergence, ConvergenceReport, Rejection

__all__ = ["Convergence", "ConvergenceReport", "Rejection"]
