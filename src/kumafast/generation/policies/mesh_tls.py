"""What MeshTLS changes: whether plaintext is taken, and which TLS is spoken.

In: a merged conf. Out: effects. Never: TLS where the mesh has none, or to what is outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation import tls
from kumafast.generation.effects import Effect, Securing
from kumafast.resources.policies.mesh_tls import PERMISSIVE, Conf, MeshTLS, Versions

KIND = MeshTLS.type.name

_Parameters = common_pb2.TlsParameters
_PROTOCOLS = {
    "TLS10": _Parameters.TLSv1_0,
    "TLS11": _Parameters.TLSv1_1,
    "TLS12": _Parameters.TLSv1_2,
    "TLS13": _Parameters.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class Taking(Effect):
    """How connections to the workload are secured."""

    mode: str
    spoken: bytes
    """`TlsParameters`, encoded; nothing where Envoy's own are right."""

    def inbound_securing(self) -> Securing:
        """Plaintext or none; versions and ciphers."""
        return Securing(is_permissive=self.mode == PERMISSIVE if self.mode else None, parameters=self.spoken)


@dataclass(frozen=True, slots=True)
class Sending(Effect):
    """How connections to services of the mesh are secured."""

    spoken: bytes

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Speak the same TLS as the mesh's inbounds."""
        tls.speak(cluster, self.spoken)


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    written = Conf.model_validate(conf)
    taking = Taking(written.mode, _spoken(written))
    return taking if taking.mode or taking.spoken else None


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    spoken = _spoken(Conf.model_validate(conf), as_client=True)
    return Sending(spoken) if spoken else None


def _spoken(written: Conf, *, as_client: bool = False) -> bytes:
    versions = written.tls_version or Versions()
    oldest, newest = (_PROTOCOLS.get(each, _Parameters.TLS_AUTO) for each in (versions.min, versions.max))
    if as_client and oldest == _Parameters.TLSv1_3 and newest == _Parameters.TLS_AUTO:
        # As a client Envoy speaks 1.2 at most unless told otherwise, and so nothing at all.
        newest = _Parameters.TLSv1_3
    parameters = _Parameters(
        tls_minimum_protocol_version=oldest,
        tls_maximum_protocol_version=newest,
        cipher_suites=written.tls_ciphers,
    )
    encoded: bytes = parameters.SerializeToString(deterministic=True)
    return encoded
