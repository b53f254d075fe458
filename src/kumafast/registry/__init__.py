"""What is true now: the live picture of each mesh, kept from the commits of the store.

In: changes. Out: immutable views, and what a change can touch. Never: Envoy messages, I/O.
"""

from kumafast.registry.affected import Affected, DataplaneId
from kumafast.registry.mesh_view import MeshView
from kumafast.registry.registry import Registry

__all__ = ["Affected", "DataplaneId", "MeshView", "Registry"]
