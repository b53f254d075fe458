"""How well the workloads are beside the Envoys of this instance: what each Envoy probes, and what it found.

In: streams of the health discovery service (it is their `HealthWatcher`), dataplanes as they are stored. Out: what each
Envoy is to probe; dataplanes whose inbounds are in another state, in batches, when something was found and at most once
an interval. Never: a write for what holds already; a look at a dataplane whose Envoy is not here.

An inbound with a `serviceProbe` is ready as long as its workload and its Envoy are; one without is as its user says,
but not ready while its Envoy is being drained. As in Kuma `health.ready` is written too, for older readers; by it we
know what we have closed ourselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from kumafast import node_parts
from kumafast.errors import KumafastError, NotFoundError, StoreUnavailableError
from kumafast.generation import health_discovery as discovery
from kumafast.generation import names
from kumafast.generation.health_discovery import Probe, Timing
from kumafast.insights import edits
from kumafast.insights.following import follow_changes
from kumafast.resources import Dataplane, Resource, ResourceKey
from kumafast.resources.durations import as_timedelta
from kumafast.resources.networking import Health as InboundHealth
from kumafast.resources.networking import Inbound
from kumafast.settings import Settings
from kumafast.snapshot.node import Node, dataplane_of
from kumafast.store import Change, Store

_LOG = logging.getLogger(__name__)

FLUSH_S = 0.02
"""What is found within this time after a first write is written together."""
RETRY_S_MAX = 5.0
"""The longest pause between attempts while the store cannot be written."""
UNPROBED_REPORT = timedelta(seconds=5)
"""How often an Envoy without a workload to probe reports at most: then it is about its own readiness only."""

Send = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthDefaults:
    """What holds where a probe does not say: when workloads are asked, and how often Envoys report."""

    timing: Timing = field(default_factory=Timing)
    report_interval: timedelta = timedelta(milliseconds=100)
    """Envoys tell nothing in between: it is what a change waits for after the probe that has found it."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What a control plane was told."""
        timing = Timing(
            interval=timedelta(milliseconds=settings.hds_check_interval_ms),
            timeout=timedelta(milliseconds=settings.hds_check_timeout_ms),
            healthy_threshold=settings.hds_check_healthy_threshold,
            unhealthy_threshold=settings.hds_check_unhealthy_threshold,
        )
        return cls(timing=timing, report_interval=timedelta(milliseconds=settings.hds_interval_ms))


@dataclass(slots=True)
class _Envoy:
    """One stream: what it was told to probe, and what it found of that."""

    key: ResourceKey
    node: Node
    send: Send
    told: bytes = b""
    probed: frozenset[str] = frozenset()
    found: Mapping[str, bool] = field(default_factory=dict)
    is_first: bool = True
    """Whether its next report is the one that answers what it was told, made before anything is probed."""


class WorkloadHealth:
    """Follows the streams of health discovery of one instance. What a proxy's newest stream says counts."""

    def __init__(self, store: Store, *, defaults: HealthDefaults | None = None) -> None:
        self._store = store
        self._defaults = HealthDefaults() if defaults is None else defaults
        self._envoys: dict[str, _Envoy] = {}
        # The streams of each proxy, the newest last.
        self._streams: dict[ResourceKey, dict[str, _Envoy]] = {}
        self._due: dict[ResourceKey, None] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self._envoys)

    # The streams' side.

    def opened(self, stream_id: str, node: Node, send: Send) -> None:
        """An Envoy asks what to probe. It is told once its dataplane is there."""
        named = dataplane_of(node.id)
        if named is None:
            return
        key = ResourceKey(Dataplane.type.name, *named)
        envoy = self._envoys[stream_id] = _Envoy(key, node, send)
        self._streams.setdefault(key, {})[stream_id] = envoy
        self._ask(key)

    def reported(self, stream_id: str, health: Mapping[str, bool]) -> bool:
        """An Envoy has found something; False where that does not count, and is to be told again."""
        envoy = self._envoys.get(stream_id)
        if envoy is None:
            return True
        if envoy.is_first:
            envoy.is_first = False
            if not all(health.values()):
                return False
        # Whatever else it names is nothing that it was asked for.
        found = {name: health[name] for name in envoy.probed if name in health}
        if found != envoy.found:
            envoy.found = found
            self._ask(envoy.key)
        return True

    def closed(self, stream_id: str) -> None:
        """A stream has ended. What it found stays true until somebody finds something else."""
        envoy = self._envoys.pop(stream_id, None)
        if envoy is not None:
            streams = self._streams[envoy.key]
            del streams[stream_id]
            if not streams:
                del self._streams[envoy.key]

    # The store's side.

    async def watch(self) -> None:
        """Look again at the dataplanes that are written while their Envoys are here, until cancelled."""
        await follow_changes(self._store, changed=self._look_at, missed=self._look_at_all)

    def _look_at(self, change: Change) -> None:
        if change.key in self._streams:
            self._ask(change.key)

    def _look_at_all(self) -> None:
        for key in self._streams:
            self._ask(key)

    async def follow(self) -> None:
        """Tell Envoys what to probe and write what they have found, until cancelled."""
        retry_s = FLUSH_S
        while True:
            await self._arrived.wait()
            try:
                await self.flush()
                retry_s = FLUSH_S
            except KumafastError as error:
                # Where nothing can be stored, the store has said so, once.
                level = logging.DEBUG if isinstance(error, StoreUnavailableError) else logging.WARNING
                _LOG.log(level, "cannot write the health of %d dataplanes, will try again: %s", len(self._due), error)
                retry_s = min(2 * max(retry_s, 0.1), RETRY_S_MAX)
            await asyncio.sleep(retry_s)

    async def flush(self) -> None:
        """Look at all dataplanes for which something has changed since the last time, a slice in each commit."""
        self._arrived.clear()
        due, self._due = list(self._due), {}
        for start in range(0, len(due), edits.COMMIT_MAX):
            keys = due[start : start + edits.COMMIT_MAX]
            try:
                for key in keys:
                    await self._tell(key)
                await edits.change(self._store, keys, self._judged)
            except KumafastError:
                for key in due[start:]:
                    self._ask(key)
                raise

    def _ask(self, key: ResourceKey) -> None:
        self._due[key] = None
        self._arrived.set()

    async def _tell(self, key: ResourceKey) -> None:
        """Tell a proxy what to probe, where that is something else than before."""
        streams = self._streams.get(key)
        if streams is None:
            return
        try:
            dataplane = (await self._store.get(key)).resource
        except NotFoundError:
            return
        assert isinstance(dataplane, Dataplane)
        probes = tuple(probe for _, probe in self._probes(dataplane))
        report_interval = self._defaults.report_interval
        for envoy in tuple(streams.values()):
            message = discovery.specifier(
                node_parts.admin_interface(envoy.node),
                probes,
                timing=self._defaults.timing,
                report_interval=report_interval if probes else max(report_interval, UNPROBED_REPORT),
            )
            told = message.SerializeToString(deterministic=True)
            if told != envoy.told:
                envoy.told = told
                envoy.probed = frozenset(check.cluster_name for check in message.cluster_health_checks)
                envoy.is_first = True
                envoy.send(told)

    def _probes(self, dataplane: Dataplane) -> Iterator[tuple[Inbound, Probe]]:
        """The inbounds whose workloads are to be probed, with how."""
        timing = self._defaults.timing
        for inbound in dataplane.inbounds:
            probe = inbound.service_probe
            if probe is not None and inbound.state != "Ignored":
                interval, timeout = probe.interval, probe.timeout
                own = Timing(
                    interval=timing.interval if interval is None else as_timedelta(interval),
                    timeout=timing.timeout if timeout is None else as_timedelta(timeout),
                    healthy_threshold=probe.healthy_threshold or timing.healthy_threshold,
                    unhealthy_threshold=probe.unhealthy_threshold or timing.unhealthy_threshold,
                )
                yield inbound, Probe(inbound.effective_service_address, inbound.effective_service_port, own)

    def _judged(self, key: ResourceKey, held: Resource | None) -> Resource | None:
        """A dataplane with its inbounds as its newest stream has found them; None where that says nothing."""
        streams = self._streams.get(key)
        if not streams or not isinstance(held, Dataplane) or held.networking is None:
            return None
        found = next(reversed(streams.values())).found
        probes = {inbound: probe.name for inbound, probe in self._probes(held)}
        inbounds = tuple(
            _judged(inbound, is_well=found.get(probes.get(inbound, "")), is_probed=inbound in probes, is_live=is_live)
            for is_live in (found.get(names.ENVOY_ADMIN, True),)
            for inbound in held.inbounds
        )
        if inbounds == held.inbounds:
            return None
        networking = held.networking.model_copy(update={"inbound": inbounds})
        return held.model_copy(update={"networking": networking})


def _judged(inbound: Inbound, *, is_well: bool | None, is_probed: bool, is_live: bool) -> Inbound:
    """An inbound in the state that it should be in; `is_well` is None as long as nobody knows."""
    if not is_live:
        is_ready = False
    elif is_probed:
        is_ready = inbound.is_ready if is_well is None else is_well
    else:
        # What its user has closed stays closed; what we have closed is marked so.
        is_ready = inbound.is_ready or (inbound.health is not None and inbound.state == "NotReady")
    return in_state(inbound, is_ready=is_ready)


def in_state(inbound: Inbound, *, is_ready: bool) -> Inbound:
    """An inbound that clients may be sent to, or may not; one that is ignored stays so."""
    if inbound.state == "Ignored" or is_ready == inbound.is_ready:
        return inbound
    state = "Ready" if is_ready else "NotReady"
    return inbound.model_copy(update={"state": state, "health": InboundHealth(ready=is_ready)})
