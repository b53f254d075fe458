"""The composition root: builds the parts, wires them, starts and stops them in order.

In: `Settings`. Out: a running control plane with three addresses.
Never: logic; every rule lives in the part that it is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import time
import uuid
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

import kumafast
from kumafast import spread
from kumafast import store as stores
from kumafast.errors import ConflictError, InvalidResourceError, NotFoundError, SettingsError
from kumafast.identity import ensure_server_certificate
from kumafast.identity.access import ADMIN_GROUP, AnonymousAccess
from kumafast.identity.admission import admit
from kumafast.identity.proxies import ProxyAccess
from kumafast.identity.rollout import Rollout
from kumafast.identity.token_keys import TokenKeys, offline_keys
from kumafast.identity.tokens import UserClaims
from kumafast.insights import Clients, Convergence, ConvergenceReport, HealthDefaults, Insights, WorkloadHealth
from kumafast.ipam import Allocator, Ranges
from kumafast.metrics import Metrics
from kumafast.observers import Observers
from kumafast.own_services import ServiceGenerator, ensure_generators
from kumafast.preview import Preview, foresee
from kumafast.reconciler import Reconciler
from kumafast.registry.virtual_hosts import Naming
from kumafast.rejections import Cause, Refusal, trace
from kumafast.resources import Mesh, Resource, ResourceKey, initial_resources, validate, with_defaults
from kumafast.rest.access import AccessRules
from kumafast.rest.api import create_api
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.diagnostics import create_diagnostics
from kumafast.rest.http_server import HttpServer
from kumafast.rest.services import ApiServices, DpServices
from kumafast.rest.siblings import Siblings, create_answerer, others_clients
from kumafast.settings import Settings
from kumafast.snapshot import SnapshotCache
from kumafast.store import Change, Put, Store, StoredResource
from kumafast.store.questions import ALONE, Questions
from kumafast.stream import Csds, Hds, TlsFiles, XdsServer
from kumafast.stream_access import Door

_LOG = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
SHED_S = 1.5
"""Those that are sent away together leave at any moments of so many seconds, less than instances take to look again."""
_TRUST_TIMEOUT_S = 30.0
"""How long the change of an authority waits for proxies that do not take whom to trust."""
_ADMIN_TOKEN_LIFETIME = timedelta(days=3650)


class ControlPlane:
    """A whole control plane in this process, on the running event loop.

    Use it as an async context manager, or `start` and `stop` it. While it runs, `put`, `get`, `list` and `delete` work
    on its store with the same validation as the HTTP API.

    >>> import asyncio
    >>> from kumafast import ControlPlane, Mesh
    >>> from kumafast.settings import Settings
    >>> async def main() -> list[str]:
    ...     settings = Settings(store="memory", api_port=0, dp_port=0, diagnostics_port=0, dp_tls=False)
    ...     async with ControlPlane(settings) as control_plane:
    ...         await control_plane.put(Mesh(name="payments"))
    ...         return [stored.resource.name for stored in await control_plane.list("Mesh")]
    >>> asyncio.run(main())
    ['default', 'payments']
    """

    def __init__(self, settings: Settings | None = None, *, socket_path: Path | None = None) -> None:
        """With `socket_path` it is one of several workers: it shares its ports, and has its diagnostics there."""
        self.settings = settings or Settings()
        self._socket_path = socket_path
        self.instance_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:4]}"
        self.metrics = Metrics()
        self.cache = SnapshotCache()
        self.metrics.count_snapshots_with(lambda: len(self.cache))
        self.metrics.count_tasks_with(lambda: len(asyncio.all_tasks()))
        self.metrics.show_store_with(self._store_failure)
        self.api_url = self.api_tls_url = self.dp_url = self.diagnostics_url = ""
        self.admin_token = ""
        """The administrator's token, at the first start on an empty store only; it is kept nowhere."""
        self._store: Store | None = None
        self._reconciler: Reconciler | None = None
        self._keys: TokenKeys | None = None
        self._proxies: ProxyAccess | None = None
        self._insights: Insights | None = None
        self._convergence: Convergence | None = None
        self._allocator: Allocator | None = None
        self._xds: XdsServer | None = None
        self._questions: Questions = ALONE
        self._http: list[HttpServer] = []
        self._private: HttpServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ready = False

    @property
    def store(self) -> Store:
        """The store; there from `start` to `stop`."""
        if self._store is None:
            raise SettingsError("the control plane is not running; start it, or use it in `async with`")
        return self._store

    def _store_failure(self) -> str:
        return "" if self._store is None else self._store.failure

    # Starting and stopping.

    async def start(self) -> None:
        """Serve. Raises `SettingsError`, `OSError` for a port that is taken, the store's errors; then nothing runs."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self.settings
        self._store = await stores.open_store(
            settings.store_url, keyring=stores.keyring_of(settings), instance=self.instance_id
        )
        self._questions = stores.open_questions(self._store, settings.store_url)
        await self._ensure_default_mesh()
        await ensure_generators(self._store)
        ranges = Ranges.given(settings)
        reconciler = self._reconciler = Reconciler(
            store=self._store,
            cache=self.cache,
            metrics=self.metrics,
            debounce_ms=settings.debounce_ms,
            leds_threshold=settings.leds_threshold,
            failed=self._failed,
            ranges=ranges,
            naming=Naming(
                domain=settings.dns_server_domain,
                port=settings.dns_server_service_vip_port,
                has_services=settings.dns_server_service_vip_enabled,
            ),
        )
        convergence = self._convergence = Convergence(
            cache=self.cache,
            progress=reconciler,
            observe_seconds=self.metrics.proxy_convergence_seconds.observe,
        )
        insights = self._insights = Insights(
            store=self._store,
            convergence=convergence,
            metrics=self.metrics,
            instance_id=self.instance_id,
            flush_ms=settings.insight_flush_ms,
            certificate_of=reconciler.certificates.get,
            failure_of=reconciler.failure,
        )
        self._keys = TokenKeys(self._store, offline=offline_keys(settings.dp_token_keys))
        await self._keys.load()
        await self._greet(self._keys)
        self._spawn(self._keys.follow(), "token keys")
        await insights.take_over()
        await reconciler.load()
        self._spawn(reconciler.follow(), "reconcile")
        members = self._store.members
        members.count_proxies = lambda: len(self.cache)
        self._spawn(spread.follow(members, limit=settings.proxies_soft_limit, shed=self._shed), "spread")
        self._spawn(insights.follow(), "insights")
        self._spawn(insights.keep_true(), "own insights")
        self._spawn(members.lead(insights.follow_members), "insights of the dead")
        self._spawn(self._tell_convergence(), "convergence")
        if settings.requires_tokens:
            self._proxies = ProxyAccess(self._keys, find_dataplane=reconciler.find_dataplane)
            self._spawn(self._proxies.follow(self._store, after=await self._store.revision()), "proxies")
        allocator = self._allocator = Allocator(
            store=self._store,
            books=reconciler.registry.unsettled_addresses,
            settle=reconciler.settle,
            moved=reconciler.moved,
            applied=reconciler.applied,
            ranges=ranges,
        )
        self._spawn(members.lead(allocator.follow), "virtual addresses")
        generator = ServiceGenerator(store=self._store, zone=settings.zone)
        self._spawn(members.lead(generator.follow), "generated services")
        rollout = partial(Rollout, store=self._store, converged=self._has_converged)
        self._spawn(members.lead(lambda: rollout().follow()), "authorities")
        await self._serve_http(reconciler, convergence)
        await self._serve_proxies(Observers(reconciler, insights), insights.clients)
        self._is_ready = True

    async def _serve_http(self, reconciler: Reconciler, convergence: Convergence) -> None:
        settings = self.settings
        keys = self._keys
        assert keys is not None
        assert self._insights is not None
        rules = AccessRules(
            verify=keys.verify_user,
            is_localhost_admin=settings.localhost_is_admin,
            anonymous=AnonymousAccess(settings.anonymous_access),
        )
        services = ApiServices(
            store=self.store,
            picture=reconciler.registry,
            settle=reconciler.settle,
            snapshot_of=self.cache.get,
            shadowed=reconciler.shadowed,
            zone=settings.zone,
            instance_id=self.instance_id,
            cluster_id=str(uuid.uuid5(uuid.NAMESPACE_URL, self.store.identity)),
            version=kumafast.__version__,
            await_convergence=self._await_convergence,
            foresee=self._foresee,
            rejections=convergence.rejections,
            trace=self._trace,
            siblings=Siblings(self._questions),
            token_keys=keys,
            access=rules,
            settings_document=settings.as_shown(),
            creates_routes=settings.create_mesh_routing_resources,
        )
        api = HttpServer(create_api(services))
        if settings.api_tls_port >= 0:
            await self._serve_https(services)
        self._http.append(api)
        port = await api.start(settings.host, settings.api_port, is_shared=self._is_worker)
        self.api_url = _url("http", settings.host, port)
        answerer = create_answerer(services, Csds(self._insights.clients, self.cache).own)
        self._spawn(self._questions.follow(answerer), "questions of other instances")
        diagnostics = HttpServer(create_diagnostics(lambda: self._is_ready, self.metrics.read, self._store_failure))
        if self._socket_path is not None:
            self._private = diagnostics
            await diagnostics.start_at(self._socket_path)
            return
        self._http.append(diagnostics)
        port = await diagnostics.start(settings.host, settings.diagnostics_port)
        self.diagnostics_url = _url("http", settings.host, port)

    @property
    def _is_worker(self) -> bool:
        return self._socket_path is not None

    async def _foresee(self, changes: Sequence[Change]) -> Preview:
        reconciler = self._reconciler
        assert reconciler is not None
        # Who has just written something asks about the state after it.
        await reconciler.settle()
        return await foresee(reconciler.fork, reconciler.node, changes)

    def _failed(self, node_id: str) -> None:
        if self._insights is not None:
            self._insights.failed(node_id)

    async def _trace(self, refusals: Sequence[Refusal]) -> list[Cause]:
        assert self._reconciler is not None
        return await trace(refusals, self._reconciler.fork, self._reconciler.node)

    async def _serve_https(self, services: ApiServices) -> None:
        settings = self.settings
        files = self._certificate()
        if settings.api_tls_cert:
            files = TlsFiles(certificate=Path(settings.api_tls_cert), key=Path(settings.api_tls_key))
        if settings.api_client_ca:
            files = dataclasses.replace(files, client_ca=Path(settings.api_client_ca))
            certified = dataclasses.replace(services.access, is_certified=True)
            services = dataclasses.replace(services, access=certified)
        server = HttpServer(create_api(services), tls=files.create_context(alpn=("http/1.1",)))
        self._http.append(server)
        port = await server.start(settings.host, settings.api_tls_port, is_shared=self._is_worker)
        self.api_tls_url = _url("https", settings.host, port)

    async def _greet(self, keys: TokenKeys) -> None:
        """At the first start of all: a token for the administrator, where being on this machine is not enough."""
        settings = self.settings
        if (settings.is_loopback and settings.localhost_is_admin) or not keys.is_new:
            return
        token = await keys.issue_user(UserClaims(Name="admin", Groups=(ADMIN_GROUP,)), valid_for=_ADMIN_TOKEN_LIFETIME)
        self.admin_token = token

    async def _serve_proxies(self, observers: Observers, clients: Clients) -> None:
        # The last port to open: an Envoy that asks before the state is complete would be told that it has nothing.
        settings = self.settings
        tls = self._certificate() if settings.dp_tls else None
        services = DpServices(
            store=self.store,
            zone=settings.zone,
            certificate_pem=self._shown_certificate,
            proxies=self._proxies,
            has_hds=settings.hds_enabled,
        )
        assert self._keys is not None
        door = None if self._proxies is None else Door(self._proxies, self._keys)
        authenticate = None if door is None else door.authenticate
        handlers = {}
        if settings.has_csds:
            authorize = None if door is None else door.authorize
            others = partial(others_clients, self._questions)
            handlers = Csds(clients, self.cache, authorize=authorize, others=others).handlers()
        if settings.hds_enabled:
            health = WorkloadHealth(self.store, defaults=HealthDefaults.of(settings))
            self.metrics.count_health_streams_with(health.__len__)
            self._spawn(health.watch(), "dataplanes whose workloads are probed")
            self._spawn(health.follow(), "health")
            handlers |= Hds(health, authenticate=authenticate).handlers()
        bootstrap = HttpServer(create_dp_app(services))
        self._http.append(bootstrap)
        self._xds = XdsServer(
            self.cache,
            observer=observers,
            instance_id=self.instance_id,
            http_protocol=bootstrap.protocol,
            handlers=handlers,
            authenticate=authenticate,
            http_app=bootstrap.app,
        )
        port = await self._xds.start(settings.host, settings.dp_port, tls=tls, is_shared=self._is_worker)
        self.dp_url = _url("grpcs" if tls else "grpc", settings.host, port)

    def _certificate(self) -> TlsFiles:
        settings = self.settings
        client_ca = Path(settings.dp_client_ca).expanduser() if settings.dp_client_ca else None
        if settings.dp_tls_cert:
            return TlsFiles(certificate=Path(settings.dp_tls_cert), key=Path(settings.dp_tls_key), client_ca=client_ca)
        files = ensure_server_certificate(settings.data_path, host=settings.host)
        return TlsFiles(certificate=files.certificate, key=files.key, client_ca=client_ca)

    def _shown_certificate(self) -> bytes | None:
        return None if self._xds is None else self._xds.certificate_pem

    def reload_certificate(self) -> None:
        """Read the dp-server's certificate, key and clients' authority anew, for the connections to come.

        That happens by itself a few seconds after they have changed. Files of no use are logged and change nothing.
        """
        if self.settings.dp_tls and self._xds is not None:
            self._xds.reload_certificate()

    async def _ensure_default_mesh(self) -> None:
        try:
            await self.store.get(ResourceKey(Mesh.type.name, "", "default"))
        except NotFoundError:
            await self.put(Mesh(name="default"))

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        # A chore that ends by itself while the control plane runs is a defect. Better not ready than quietly wrong.
        if not task.cancelled() and task.exception() is not None:
            self._is_ready = False
            _LOG.critical("%s has failed; not ready any more", task.get_name(), exc_info=task.exception())

    # Managing resources from Python.

    async def put(self, resource: Resource) -> StoredResource:
        """Validate and write a resource as the HTTP API does. Raises `InvalidResourceError` or the store's errors."""
        violations = validate(resource)
        if violations:
            raise InvalidResourceError(violations)
        zone = self.settings.zone
        complete = with_defaults(resource, zone=zone)
        admission = await admit(complete, self.store)
        if admission.violations:
            raise InvalidResourceError(admission.violations)
        companions = [Put(each, expected_revision=0) for each in admission.companions]
        with_it = initial_resources(complete, zone=zone, routes=self.settings.create_mesh_routing_resources)
        if with_it:
            # Where it is there already it is an update, and nothing comes with it.
            with contextlib.suppress(ConflictError):
                await self.store.write([Put(complete, expected_revision=0), *companions, *map(Put, with_it)])
                return await self.store.get(complete.key)
        await self.store.write([Put(complete), *companions])
        return await self.store.get(complete.key)

    async def get(self, type_name: str, name: str, *, mesh: str = "") -> StoredResource:
        """One stored resource; `mesh` is empty for global types. Raises `NotFoundError`."""
        return await self.store.get(ResourceKey(type_name, mesh, name))

    async def list(self, type_name: str, *, mesh: str | None = None) -> tuple[StoredResource, ...]:
        """All stored resources of a type, of one mesh or of all, by mesh and name."""
        return (await self.store.list(type_name, mesh)).items

    async def delete(self, type_name: str, name: str, *, mesh: str = "") -> int:
        """Delete a resource; the revision of the store afterwards. Raises `NotFoundError`, `MeshInUseError`."""
        return await self.store.delete(ResourceKey(type_name, mesh, name))

    async def converged(self, revision: int, *, timeout_s: float = 10.0) -> ConvergenceReport:
        """Wait until every connected proxy has acknowledged or refused the store's state at a revision."""
        return await self._await_convergence(revision, timeout_s)

    async def _await_convergence(
        self, revision: int, timeout_s: float, *, since: int | None = None
    ) -> ConvergenceReport:
        assert self._convergence is not None
        assert self._allocator is not None
        given, started = revision, time.monotonic()
        # What gets its name by a write gets its address in a commit of its own, which whoever waits means as well.
        with contextlib.suppress(TimeoutError):
            given = max(revision, await asyncio.wait_for(self._allocator.given(revision), timeout_s))
        rest = max(0.0, timeout_s - (time.monotonic() - started))
        report = await self._convergence.wait(given, rest, since=revision if since is None else since)
        return dataclasses.replace(report, revision=revision)

    async def _has_converged(self, revision: int) -> bool:
        """Whether the proxies of all instances have what is stored at a revision."""
        try:
            async with asyncio.timeout(_TRUST_TIMEOUT_S):
                report = await self.converged(revision, timeout_s=_TRUST_TIMEOUT_S)
                await self.store.members.all_converged(revision)
        except TimeoutError:
            return False
        return report.is_converged

    async def _tell_convergence(self) -> None:
        """Tell the other instances when our proxies have what they ask about, until cancelled."""
        members = self.store.members
        while True:
            wanted = members.wanted
            if wanted <= members.converged:
                await members.change()
            elif (await self.converged(wanted, timeout_s=_TRUST_TIMEOUT_S)).is_converged:
                members.have_converged(wanted)

    async def _shed(self, count: int) -> None:
        if self._xds is not None:
            sent = await self._xds.shed(count, spread_s=SHED_S)
            _LOG.info("sent %d of %d proxies away, for other instances have room", sent, len(self.cache))

    # Stopping.

    async def drain(self, spread_s: float) -> None:
        """Take no more connections, and send the proxies away evenly over so many seconds. `stop` it then."""
        self._is_ready = False
        for server in self._http:
            server.close()
        if self._xds is not None:
            await self._xds.drain(spread_s)

    async def stop(self) -> None:
        """End streams in order, finish requests, write the last statuses, close the store. Safe to call twice."""
        self._is_ready = False
        if self._xds is not None:
            await self._xds.stop(STOP_GRACE_S)
            self._xds = None
        if self._proxies is not None:
            self._proxies.stop()
            self._proxies = None
        for server in self._http:
            await server.stop(STOP_GRACE_S)
        self._http.clear()
        if self._private is not None:
            await self._private.stop(STOP_GRACE_S)
            self._private = None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._store is not None:
            if self._insights is not None:
                with contextlib.suppress(Exception):
                    await self._insights.flush()
            await self._store.close()
            self._store = None

    async def __aenter__(self) -> ControlPlane:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
