"""The sidecar's own DNS: names of the mesh, answered with virtual addresses.

In: a `DnsTable`. Out: a `Listener` over UDP with all of it in. Never: a look-up of any other name, which the sidecar's
launcher or the host does; where an address leads.
"""

from __future__ import annotations

from datetime import timedelta

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.data.dns.v3 import dns_table_pb2
from envoy.extensions.filters.udp.dns_filter.v3 import dns_filter_pb2

from kumafast.generation import fields, names
from kumafast.generation.proxy import DnsTable

_FILTER = "envoy.filters.udp.dns_filter"
_STATISTICS = "kuma_dns"
_LOOPBACK = "127.0.0.1"
_TTL = timedelta(seconds=30)
"""For how long clients may remember an answer; as in Kuma, a middle way between their memory and their questions."""


def dns_listener(table: DnsTable) -> listener_pb2.Listener:
    """The port that answers for the names of the mesh; of any other name it says that there is none."""
    known = dns_table_pb2.DnsTable()
    ttl = fields.duration(_TTL)
    for name, addresses in table.names:
        domain = known.virtual_domains.add(name=name, answer_ttl=ttl)
        domain.endpoint.address_list.address.extend(addresses)
    config = dns_filter_pb2.DnsFilterConfig(stat_prefix=_STATISTICS)
    config.server_config.inline_dns_table.CopyFrom(known)
    # To share the port is what Envoy does unless told otherwise, and over UDP it has to, whatever the host can do.
    listener = listener_pb2.Listener(name=names.DNS_LISTENER, traffic_direction=base_pb2.TrafficDirection.INBOUND)
    address = listener.address.socket_address
    address.protocol = address_pb2.SocketAddress.UDP
    address.address, address.port_value = _LOOPBACK, table.port
    listener.listener_filters.add(name=_FILTER).typed_config.Pack(config, deterministic=True)
    return listener
