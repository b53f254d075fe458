"""What users write: Mesh, Dataplane and policies, as frozen and validated values.

In: documents (mappings from YAML or JSON). Out: resources, violations, documents again.
Never: storing them, or what Envoy makes of them.
"""
