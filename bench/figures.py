"""The rows of README's table of figures: which figures of which committed results each shows.

In: nothing. Out: rows for `bench.readme`, which fills them. Never: a value; whoever wants another one measures it.

A `{figure}` is one of the newest of the days' documents that has it, or after a colon of the newest file of a source;
`{a / b}` is a ratio, or so much of a for each b; `{least pattern}` and `{most pattern}` are of all that match; `{spread
figure}` has what it was at least and at most behind it, where that says something.
"""

from __future__ import annotations

from dataclasses import dataclass

_LOAD = "loadtest/results/*-{}/figures.json"

SOURCES: dict[str, tuple[str, str]] = {
    "kuma": ("bench/peers/kuma.json", ""),
    "rollout": (_LOAD.format("rollout-5000"), "make loadtest SCENARIO=rollout USERS=5000"),
    "reconnect": (_LOAD.format("reconnect-storm-5000"), "make loadtest SCENARIO=reconnect-storm USERS=5000"),
    "steady": (_LOAD.format("steady-5000"), "make loadtest SCENARIO=steady USERS=5000"),
    "steady15": (_LOAD.format("steady-15000"), "make loadtest SCENARIO=steady USERS=15000 WORKERS=2"),
    "rollout15": (_LOAD.format("rollout-15000"), "make loadtest SCENARIO=rollout USERS=15000 WORKERS=2"),
    "reconnect15": (
        _LOAD.format("reconnect-storm-15000"),
        "make loadtest SCENARIO=reconnect-storm USERS=15000 WORKERS=2",
    ),
    "many": (_LOAD.format("many-50000"), "make load-many STREAMS=50000"),
    "soak": (_LOAD.format("soak-2000"), "make soak MINUTES=60 USERS=2000"),
    "sidecars": (_LOAD.format("envoys-50"), "make load-envoys N=50"),
    "kills": ("bench/results/*-kills.json", "make bench-instances PART=kills"),
    "outages": ("bench/results/*-outages.json", "make bench-instances PART=outages"),
    "workers": ("bench/results/*-workers.json", "make bench-instances PART=workers"),
}
"""By name: which files, of which the newest counts, and the command that writes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Texts with figures in braces. Command, day and machine are those of what `figure` names."""

    group: str
    what: str
    figure: str
    peer: str = ""
    ratio: str = ""
    is_optional: bool = False
    """Left out where nothing of its source was committed: of what is long, and is not run each time."""


_CHANGE, _MANY, _WIRE = "A change, a start", "Many Envoys", "The wire beside its peers"
_CORE, _HARM = "The compiled core", "Attacks and churn"

ROWS: tuple[Row, ...] = (
    Row(
        group=_CHANGE,
        what="store write (SQLite, durable) to the ACK of a real Envoy over TLS, one endpoint; the debounce is up "
        "to 5 ms",
        figure="{spread propagation.endpoint_change_to_acknowledgement.delta}",
    ),
    Row(
        group=_CHANGE,
        what="one endpoint, 50 proxies affected: CPU with their in-memory streams, in a mesh of 1,000 / 10,000 / "
        "50,000",
        figure="{spread sizes.1000.endpoint.sent_cpu_s} / {spread sizes.10000.endpoint.sent_cpu_s} / "
        "{spread sizes.50000.endpoint.sent_cpu_s}",
        peer="Kuma 2.14.3 at 1,000, all of it: {kuma:2.14.3.endpoint_cpu_s.1000}",
    ),
    Row(
        group=_CHANGE,
        what="a policy for 1 %: the same",
        figure="{spread sizes.1000.policy_1_percent.sent_cpu_s} / {spread sizes.10000.policy_1_percent.sent_cpu_s} / "
        "{spread sizes.50000.policy_1_percent.sent_cpu_s}",
        peer="Kuma 3.0 preview at 1,000, all of it: {kuma:3.0-preview.policy_for_1_percent_cpu_s.1000}",
    ),
    Row(
        group=_CHANGE,
        what="a policy for all; one about what comes in for all: the same",
        figure="{sizes.1000.policy_all.sent_cpu_s} / {sizes.10000.policy_all.sent_cpu_s} / "
        "{sizes.50000.policy_all.sent_cpu_s}; {sizes.1000.policy_inbounds.sent_cpu_s} / "
        "{sizes.10000.policy_inbounds.sent_cpu_s} / {sizes.50000.policy_inbounds.sent_cpu_s}",
    ),
    Row(
        group=_CHANGE,
        what="one endpoint of a service of 10,000: spliced, against built anew by protobuf",
        figure="{spread reconcile.one_endpoint_of_many.spliced-10000}",
        peer="{reconcile.one_endpoint_of_many.by protobuf-10000}",
        ratio="{reconcile.one_endpoint_of_many.by protobuf-10000 / reconcile.one_endpoint_of_many.spliced-10000}",
    ),
    Row(
        group=_CHANGE,
        what="one endpoint of 10,000 leaves, 1,000 clients: one by one (LEDS, "
        "[off by default](docs/decisions/008-endpoints-one-by-one.md)), against EDS: sent; CPU",
        figure="{leds.stream.10000.leave_kb}; {leds.stream.10000.leave_cpu_ms}",
        peer="{leds.eds.10000.leave_kb}; {leds.eds.10000.leave_cpu_ms}",
        ratio="{leds.eds.10000.leave_kb / leds.stream.10000.leave_kb}; "
        "{leds.eds.10000.leave_cpu_ms / leds.stream.10000.leave_cpu_ms}",
    ),
    Row(
        group=_CHANGE,
        what="a new service, 1,000 there, 1,000 transparent proxies that see all names; two; not this one: CPU",
        figure="{names_cost.all_see_it_beside_1,000_cpu_s}; {names_cost.all_see_it_beside_one_cpu_s}; "
        "{names_cost.nobody_sees_it_cpu_s}",
    ),
    Row(
        group=_CHANGE,
        what="5,000 proxies come to a mesh with TLS: CPU for their certificates; all anew by another authority; its "
        "longest turn",
        figure="{issuing.issuing_cpu_s}; {issuing.another_authority_cpu_s}; {issuing.longest_turn_s}",
    ),
    Row(
        group=_CHANGE,
        what="a workload stops listening, probed each second: its endpoint gone; back; CPU of a report that says "
        "nothing "
        "new",
        figure="longest of {health_cost.rounds}: {health_cost.leaves_longest_s}; {health_cost.comes_back_longest_s}; "
        "{health_cost.report_cpu_us}",
    ),
    Row(
        group=_MANY,
        what="{envoys.size} simulated Envoys on sockets, 10 changes a second through REST: request of the write to "
        "arrival, "
        "p50, p99; missed",
        figure="{envoys.churn.from_request_ms.p50}, {envoys.churn.from_request_ms.p99}; {envoys.churn.missed} of "
        "{envoys.churn.from_request_ms.count}",
        peer="Kuma 2.14.3 at 1,000, p99: {kuma:2.14.3.churn_p99_s.1000}",
        ratio="{kuma:2.14.3.churn_p99_s.1000 / envoys.churn.from_request_ms.p99}",
    ),
    Row(
        group=_MANY,
        what="the same: CPU of the whole control plane for a change",
        figure="{envoys.churn.server_cpu_ms_each_change}",
        peer="Kuma 2.14.3 at 1,000: {kuma:2.14.3.endpoint_cpu_s.1000}",
        ratio="{kuma:2.14.3.endpoint_cpu_s.1000 / envoys.churn.server_cpu_ms_each_change}",
    ),
    Row(
        group=_MANY,
        what="the same, nothing changes for {envoys.idle.seconds} s: of a core",
        figure="{envoys.idle.server_cpu_percent}",
        peer="Kuma 2.14.3 at 1,000: {kuma:2.14.3.idle_percent.1000}",
    ),
    Row(
        group=_MANY,
        what="the same, killed and started anew, all come back: CPU of that, beside the start's; sent again that "
        "was held",
        figure="{envoys.killed.server_cpu_s_of_return}, {envoys.killed.server_cpu_s_of_start}; "
        "{envoys.killed.received.held_already}",
        peer="Kuma 2.14.3, 1,000 come back: {kuma:2.14.3.all_reconnect_cpu_s.1000}",
        ratio="{kuma:2.14.3.all_reconnect_cpu_s.1000 / envoys.killed.server_cpu_s_of_return}",
    ),
    Row(
        group=_MANY,
        what="{steady:users} Envoys in locust, {steady:rate} changes a second: "
        "request to arrival, p50, p99; CPU of all; wrong end states",
        figure="{steady:phases.steady.from_request_ms.p50}, {steady:phases.steady.from_request_ms.p99}; "
        "{steady:phases.steady.server_cpu_s} in {steady:phases.steady.seconds} s; {steady:wrong_end_states}",
    ),
    Row(
        group=_MANY,
        what="{steady15:users} Envoys in locust, {steady15:rate} changes a second: "
        "request to arrival, p50, p99; CPU of all; wrong end states",
        figure="{steady15:phases.steady.from_request_ms.p50}, {steady15:phases.steady.from_request_ms.p99}; "
        "{steady15:phases.steady.server_cpu_s} in {steady15:phases.steady.seconds} s; {steady15:wrong_end_states}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="a rolling deploy of {rollout:phases.rollout.changes.instance} instances among {rollout:users}: "
        "CPU for an instance, its new Envoy included; "
        "request to arrival, p50, p99; wrong end states",
        figure="{rollout:phases.rollout.server_cpu_s / rollout:phases.rollout.changes.instance}; "
        "{rollout:phases.rollout.from_request_ms.p50}, {rollout:phases.rollout.from_request_ms.p99}; "
        "{rollout:wrong_end_states}",
    ),
    Row(
        group=_MANY,
        what="a rolling deploy of {rollout15:phases.rollout.changes.instance} instances among {rollout15:users}: "
        "CPU for an instance, its new Envoy included; "
        "request to arrival, p50, p99; wrong end states",
        figure="{rollout15:phases.rollout.server_cpu_s / rollout15:phases.rollout.changes.instance}; "
        "{rollout15:phases.rollout.from_request_ms.p50}, {rollout15:phases.rollout.from_request_ms.p99}; "
        "{rollout15:wrong_end_states}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="all {reconnect:users} streams cut: CPU for each that comes back; wrong end states",
        figure="{reconnect:phases.all streams cut.server_cpu_s / reconnect:users}; {reconnect:wrong_end_states}",
    ),
    Row(
        group=_MANY,
        what="all {reconnect15:users} streams cut: CPU for each that comes back; wrong end states",
        figure="{reconnect15:phases.all streams cut.server_cpu_s / reconnect15:users}; {reconnect15:wrong_end_states}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="{many:users} delta streams, {many:streams_each_connection} on each connection: a new Envoy, CPU; memory "
        "with all; 50 Envoys sent an endpoint that moved, answer to arrival, p50, p99; wrong end states",
        figure="{many:phases.connect.server_cpu_s / many:users}; {many:server_rss_mb_max}; "
        "{many:phases.steady.propagation_ms.p50}, {many:phases.steady.propagation_ms.p99}; {many:wrong_end_states}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="the same, a policy of what comes in for all; one of all that goes out: request to the last "
        "acknowledgement; CPU for each stream",
        figure="{many:phases.a policy of what comes in.acknowledged_s}, "
        "{many:phases.a policy of what comes in.server_cpu_s / many:users}; "
        "{many:phases.a policy of all that goes out.acknowledged_s}, "
        "{many:phases.a policy of all that goes out.server_cpu_s / many:users}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="a soak of {soak:seconds} s, {soak:users} Envoys, everything comes and goes: memory, MB, and what it rose "
        "by after the warm-up; descriptors",
        figure="{soak:slopes.soak.memory, MB.level}, {soak:slopes.soak.memory, MB.growth}; "
        "{soak:slopes.soak.descriptors.level}, {soak:slopes.soak.descriptors.growth}",
        is_optional=True,
    ),
    Row(
        group=_MANY,
        what="{sidecars:envoys} real Envoys with mTLS, {sidecars:rate} requests a second, all instances replaced, 20 "
        "policies edited, the control plane stopped and killed: failed",
        figure="{sidecars:failed} of {sidecars:answered}",
    ),
    Row(
        group=_MANY,
        what="one of two instances on PostgreSQL killed {kills:kills} times, {kills:proxies} Envoys, changes all "
        "the time: "
        "acknowledged writes; Envoys that hold something else; resources sent again that were held",
        figure="{kills:acknowledged}; {kills:differences.count}; {kills:sent_again}",
    ),
    Row(
        group=_MANY,
        what="the same: all hold everything, 5 s of load after the kill included, at the longest; a push to who "
        "stayed, as another process saw it, p50, p99",
        figure="{kills:all_equal_s.longest}; {kills:survivors_push_s.witness.p50}, "
        "{kills:survivors_push_s.witness.p99}",
    ),
    Row(
        group=_MANY,
        what="PostgreSQL stopped, killed and cut off, {outages:seconds} s each, under the same load: the longest "
        "wait for a 503; streams lost",
        figure="{outages:stopped.refused_after_s.longest}, {outages:killed.refused_after_s.longest}, "
        "{outages:cut off.refused_after_s.longest}; {outages:stopped.streams_lost}, {outages:killed.streams_lost}, "
        "{outages:cut off.streams_lost}",
    ),
    Row(
        group=_MANY,
        what="pushes of 2 KB to {workers:streams} streams a second by two workers, by one; a worker killed: its "
        "proxies are back after",
        figure="{workers:workers_2.stopped.pushes_a_second}; {workers:killed.back_after_s}",
        peer="{workers:workers_1.stopped.pushes_a_second}",
        ratio="{workers:workers_2.stopped.pushes_a_second / workers:workers_1.stopped.pushes_a_second}",
    ),
    Row(
        group=_WIRE,
        what="2 KB push and its ACK, 1,000 connections, the compiled wire alone: CPU, against one send and one "
        "recv each",
        figure="{wire_push.push_cpu_us}, {wire_push.push_cpu_us / wire_push.floor_cpu_us} the floor",
    ),
    Row(
        group=_WIRE,
        what="the same through `XdsServer`, 10,000 connections, against the floor; go-control-plane's linear cache; "
        "grpc.aio",
        figure="{spread wire.push.kumafast-linear.10000.cpu_us}, "
        "{wire.push.kumafast-linear.10000.times_floor} the floor",
        peer="{wire.push.go-linear.10000.cpu_us}; {wire.push.grpc-aio.10000.cpu_us}",
        ratio="{wire.push.go-linear.10000.cpu_us / wire.push.kumafast-linear.10000.cpu_us}; "
        "{wire.push.grpc-aio.10000.cpu_us / wire.push.kumafast-linear.10000.cpu_us}",
    ),
    Row(
        group=_WIRE,
        what="a snapshot for each node, 10,000 connections; go-control-plane's snapshot cache",
        figure="{spread wire.push.kumafast-mesh.10000.cpu_us}, {wire.push.kumafast-mesh.10000.times_floor} the floor",
        peer="{wire.push.go-snapshot.10000.cpu_us}",
        ratio="{wire.push.go-snapshot.10000.cpu_us / wire.push.kumafast-mesh.10000.cpu_us}",
    ),
    Row(
        group=_WIRE,
        what="memory of a connection with its stream, of 10,000; go-control-plane; grpc.aio",
        figure="{wire.push.kumafast-linear.10000.resident_after_kb}",
        peer="{wire.push.go-linear.10000.resident_after_kb}; {wire.push.grpc-aio.10000.resident_after_kb}",
        ratio="{wire.push.go-linear.10000.resident_after_kb / wire.push.kumafast-linear.10000.resident_after_kb}; "
        "{wire.push.grpc-aio.10000.resident_after_kb / wire.push.kumafast-linear.10000.resident_after_kb}",
    ),
    Row(
        group=_WIRE,
        what="a push over TLS, 5,000 connections, against the plaintext floor; memory; go-control-plane; grpc.aio",
        figure="{spread wire.tls.kumafast-linear.5000.cpu_us}, {wire.tls.kumafast-linear.5000.times_floor} the floor; "
        "{wire.tls.kumafast-linear.5000.resident_after_kb}",
        peer="{wire.tls.go-linear.5000.cpu_us}, {wire.tls.go-linear.5000.resident_after_kb}; "
        "{wire.tls.grpc-aio.5000.cpu_us}, {wire.tls.grpc-aio.5000.resident_after_kb}",
        ratio="{wire.tls.go-linear.5000.cpu_us / wire.tls.kumafast-linear.5000.cpu_us}; "
        "{wire.tls.grpc-aio.5000.cpu_us / wire.tls.kumafast-linear.5000.cpu_us}",
    ),
    Row(
        group=_WIRE,
        what="19,000 connections in one process: CPU of a push, memory of one; 50,000 streams on 5,000",
        figure="{spread wire.many.kumafast-linear.19000.cpu_us}, "
        "{wire.many.kumafast-linear.19000.times_floor} the floor, "
        "{wire.many.kumafast-linear.19000.resident_after_kb}; {spread wire.streams.kumafast-linear.5000.cpu_us}, "
        "{wire.streams.kumafast-linear.5000.resident_after_kb}",
    ),
    Row(
        group=_WIRE,
        what="10,000 connect at once: CPU for each; go-control-plane's linear cache",
        figure="{wire.storm.kumafast-linear.10000.connect_us}",
        peer="{wire.storm.go-linear.10000.connect_us}",
        ratio="{wire.storm.go-linear.10000.connect_us / wire.storm.kumafast-linear.10000.connect_us}",
    ),
    Row(
        group=_CHANGE,
        what="50,000 dataplanes: SQLite opened, loaded and indexed; all snapshots computed; peak memory; a snapshot",
        figure="{sizes.50000.load_cpu_s}; {sizes.50000.snapshots_cpu_s}; {sizes.50000.peak_bytes}; "
        "{sizes.50000.proxy_bytes}",
    ),
    Row(
        group=_HARM,
        what="1,000 neighbours beside each of {attacks.attacks} attacks: the longest that a push took; beside all "
        "at once; "
        "with nobody attacking, at best and at worst; longest turn, CPU",
        figure="{attacks.one_longest_ms}; {attacks.all_at_once_longest_ms}; {attacks.nobody_least_longest_ms} to "
        "{attacks.nobody_longest_ms}; {attacks.longest_turn_cpu_s}",
    ),
    Row(
        group=_HARM,
        what="{churn.connections} clients in {churn.minutes} minutes that connect, take a push and vanish: "
        "resident memory, "
        "plaintext and TLS; what it rose by after the warm-up",
        figure="{churn.plaintext.rss_mb.level}, {churn.TLS.rss_mb.level}; {churn.plaintext.rss_mb.growth}, "
        "{churn.TLS.rss_mb.growth}",
    ),
    Row(
        group=_CHANGE,
        what="10,000 dataplanes, 1,000 policies of 14 kinds: a diff of a policy about 1 %, by CPU, and over HTTP; "
        "about "
        "all; of one of each older kind; `_rules` of one dataplane",
        figure="{preview_cost.one_percent_cpu_s}, {preview_cost.over_http_s}; {preview_cost.all_cpu_s}; "
        "{least preview_cost.kind.*_cpu_s} to {most preview_cost.kind.*_cpu_s}; "
        "{explaining_cost.rules_document_cpu_s}",
    ),
    Row(
        group=_CORE,
        what="10,000 selectors against 50,000 dataplanes of six tags, all pairs; plain Python",
        figure="{matching.all_pairs_s}",
        peer="{matching.all_pairs_twin_s}",
        ratio="{matching.all_pairs_twin_s / matching.all_pairs_s}",
    ),
    Row(
        group=_CORE,
        what="the same, for a pair; Kuma's matcher, which tries each",
        figure="{matching.pair_s}",
        peer="{kuma:matcher.pair_least_ns} to {kuma:matcher.pair_most_ns}",
        ratio="{kuma:matcher.pair_least_ns / matching.pair_s}",
    ),
    Row(
        group=_CORE,
        what="one dataplane against 100 / 100,000 selectors, ten hits",
        figure="{matching.one_dataplane_of_100_s} / {matching.one_dataplane_of_100000_s}",
    ),
    Row(
        group=_CORE,
        what="one policy edited among 10,000 selectors; a rebuild",
        figure="{matching.edit_s}",
        peer="{matching.rebuild_s}",
        ratio="{matching.rebuild_s / matching.edit_s}",
    ),
    Row(
        group=_CORE,
        what="two threads on `match_all`, against one; what two of zlib are",
        figure="{matching.two_threads_times}",
        peer="{matching.two_threads_of_zlib_times}",
    ),
    Row(
        group=_CORE,
        what="an index of 50,000 dataplanes, from Python dicts; memory of a dataplane",
        figure="{matching.build_an_index_from_dicts.50k}; {matching.index_counted_bytes}",
    ),
    Row(
        group=_CORE,
        what="one resource of a snapshot of 500 replaced: its digest; all of it anew",
        figure="{digests.replace_s}",
        peer="{digests.whole_s}",
        ratio="{digests.whole_s / digests.replace_s}",
    ),
    Row(
        group=_CORE,
        what="10,000 snapshots compared with their predecessors; their dicts",
        figure="{digests.changed_s}",
        peer="{digests.changed_dicts_s}",
        ratio="{digests.changed_dicts_s / digests.changed_s}",
    ),
)
