"""Who is who: certificate authorities of meshes, identities of workloads, tokens of dataplanes and users, their rights.

In: names, keys, secrets of the store. Out: certificates, tokens, whether somebody may do something.
Never: Envoy messages, requests.
"""

from kumafast.identity.server_certificate import CertificateFiles, ensure_server_certificate

__all__ = ["CertificateFiles", "ensure_server_certificate"]
