"""What is true now: the live picture of each mesh, kept from the commits of the store.

In: changes. Out: immutable views, and what a change can touch. Never: Envoy messages, I/O.
"""

from kumafast.registry.mesh_view import MeshView
from kumafast.registry.registry import Affected, DataplaneId, Registry

__all__ = ["Affected", "DataplaneId", "MeshView", "Registry"]
