"""What the proxies told us: who is connected, what was sent, taken and refused.

In: events of streams. Out: `DataplaneInsight` resources in coalesced batches, and who has converged.
Never: what to send.
"""

from kumafast.insights.convergence import Convergence, ConvergenceReport, Rejection
from kumafast.insights.insights import Insights

__all__ = ["Convergence", "ConvergenceReport", "Insights", "Rejection"]
