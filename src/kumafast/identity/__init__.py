"""Who is who: certificates and, later, CA backends, workload identities and tokens.

In: names and keys. Out: certificates in PEM. Never: Envoy messages, or who may do what.
"""

from kumafast.identity.server_certificate import CertificateFiles, ensure_server_certificate

__all__ = ["CertificateFiles", "ensure_server_certificate"]
