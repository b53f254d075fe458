"""What users write: Mesh, Dataplane and policies, as frozen and validated values.

In: documents (mappings from YAML or JSON). Out: resources, violations, documents again.
Never: storing them, or what Envoy makes of them.
"""

from kumafast.resources.dataplane import Dataplane
from kumafast.resources.dataplane_insight import DataplaneInsight, status
from kumafast.resources.defaults import kri, with_defaults
from kumafast.resources.document import Decoder, decode, encode, parse, to_document, unknown_fields
from kumafast.resources.external_service import ExternalService
from kumafast.resources.hostname_generator import HostnameGenerator
from kumafast.resources.initial import initial_resources
from kumafast.resources.mesh import Mesh
from kumafast.resources.mesh_external_service import MeshExternalService
from kumafast.resources.mesh_gateway import MeshGateway
from kumafast.resources.mesh_gateway_route import MeshGatewayRoute
from kumafast.resources.mesh_multi_zone_service import MeshMultiZoneService
from kumafast.resources.mesh_service import MeshService
from kumafast.resources.resource import DataplaneName, MeshName, Resource, ResourceKey, ResourceType, Scope
from kumafast.resources.secret import GlobalSecret, Secret, secret_data
from kumafast.resources.validation import validate

__all__ = [
    "Dataplane",
    "DataplaneInsight",
    "DataplaneName",
    "Decoder",
    "ExternalService",
    "GlobalSecret",
    "HostnameGenerator",
    "Mesh",
    "MeshExternalService",
    "MeshGateway",
    "MeshGatewayRoute",
    "MeshMultiZoneService",
    "MeshName",
    "MeshService",
    "Resource",
    "ResourceKey",
    "ResourceType",
    "Scope",
    "Secret",
    "decode",
    "encode",
    "initial_resources",
    "kri",
    "parse",
    "secret_data",
    "status",
    "to_document",
    "unknown_fields",
    "validate",
    "with_defaults",
]
