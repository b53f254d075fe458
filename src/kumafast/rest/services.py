"""What the front ends are given.

In: the control plane's parts, wired by the composition root. Out: frozen values that handlers take what they need from.
Never: logic, defaults of the installation, or a way to reach more of the control plane than is named here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import Request

from kumafast.identity.proxies import ProxyAccess
from kumafast.identity.token_keys import TokenKeys
from kumafast.matching import Bindings
from kumafast.preview import Preview
from kumafast.registry import DataplaneId, MeshView
from kumafast.registry.mesh_state import MeshState
from kumafast.registry.reach import Destination
from kumafast.rejections import Cause
from kumafast.resources import Dataplane
from kumafast.resources.resource import ResourceKey
from kumafast.rest.access import AccessRules
from kumafast.snapshot.snapshot import Snapshot
from kumafast.store.store import Change, Store, StoredResource
from kumafast.templates import Failure

KUMA_VERSION = "2.14.3"
"""The Kuma whose API is spoken. Its clients compare it with their own version."""


class Rejection(Protocol):
    """One Envoy's refusal: its node, the type it refused, and what it said.

    `failure` is there where it was sent nothing, for that could not be made.
    """

    @property
    def node(self) -> str: ...
    @property
    def type_url(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def failure(self) -> Failure | None: ...


class ConvergenceReport(Protocol):
    """How far the connected proxies are with a revision of the store."""

    @property
    def revision(self) -> int: ...
    @property
    def is_converged(self) -> bool: ...
    @property
    def proxies(self) -> int: ...
    @property
    def waiting(self) -> tuple[str, ...]: ...
    @property
    def rejected(self) -> tuple[Rejection, ...]: ...
    @property
    def seconds(self) -> float: ...


class AwaitConvergence(Protocol):
    """Waits until all affected, connected proxies run `revision`, at most `timeout_s` seconds.

    Affected are those whom a revision from `since` on has moved.
    """

    async def __call__(self, revision: int, timeout_s: float, /, *, since: int | None = None) -> ConvergenceReport: ...


Trace = Callable[[Sequence[Rejection]], Awaitable[Sequence[Cause]]]
"""What refusals come from, one for each."""

Foresee = Callable[[Sequence[Change]], Awaitable[Preview]]
"""What changes would do if they were stored in one commit."""


class Picture(Protocol):
    """The live picture of all meshes, to look at. An answer costs what it finds, never the mesh."""

    def mesh(self, name: str, /) -> MeshView | None: ...
    def dataplane(self, dataplane_id: DataplaneId, /) -> Dataplane | None: ...
    def bindings(self, dataplane_id: DataplaneId, /) -> Bindings: ...
    def written(self, key: ResourceKey, /) -> StoredResource | None: ...
    def selected_by(self, key: ResourceKey, /) -> Sequence[str]: ...
    def providers(self, mesh: str, destination: Destination, /) -> Iterator[Dataplane]: ...
    def is_secured(self, dataplane_id: DataplaneId, /) -> bool: ...
    def is_online(self, dataplane_id: DataplaneId, /) -> bool: ...
    def state(self, mesh: str, /) -> MeshState | None: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What the other instances say: a document each; who gave none, although it lives; complete where none went away
    without an answer."""

    documents: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[str] = ()
    is_complete: bool = True


class Siblings(Protocol):
    """The other instances, which have proxies of their own."""

    async def ask(
        self, request: Request, /, *, query: str = "", wait_s: float = 0.0, first: bool = False, since: int = 0
    ) -> Answers: ...


class _Alone:
    """The one instance of its store."""

    async def ask(
        self, _: Request, /, *, query: str = "", wait_s: float = 0.0, first: bool = False, since: int = 0
    ) -> Answers:
        return Answers()


ALONE: Siblings = _Alone()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """For the API on 5681. `version` is kumafast's; `settings_document` is shown by `GET /config`: no secrets in it.

    `settle` returns once the picture shows what is stored when it is called. `snapshot_of` gives what the node with an
    id runs, `shadowed` that of now and that under the shadow policies of its mesh too; None where none is connected.
    """

    store: Store
    picture: Picture
    settle: Callable[[], Awaitable[None]]
    snapshot_of: Callable[[str], Snapshot | None]
    shadowed: Callable[[str], Awaitable[tuple[Snapshot, Snapshot] | None]]
    zone: str
    instance_id: str
    cluster_id: str
    version: str
    await_convergence: AwaitConvergence
    foresee: Foresee
    rejections: Callable[[], Sequence[Rejection]] = tuple
    """What connected proxies refuse now."""
    trace: Trace
    siblings: Siblings = ALONE
    """Who knows of proxies that are connected, and not to this process."""
    token_keys: TokenKeys
    access: AccessRules
    kuma_version: str = KUMA_VERSION
    settings_document: Mapping[str, object] = field(default_factory=dict)
    creates_routes: bool = False
    """Whether a new mesh has policies that permit and route all of its traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DpServices:
    """For the dp-server on 5678. `proxies` judges who may have a bootstrap; without it everybody may.

    `certificate_pem` gives the certificate that it shows now, with its chain; None where it serves plaintext.
    """

    store: Store
    zone: str
    certificate_pem: Callable[[], bytes | None] = lambda: None
    proxies: ProxyAccess | None = None
    has_hds: bool = True
    """Whether Envoys are to ask what to probe."""
