"""The family of policies with a `targetRef`: for dataplanes, what they send (`to`) and take (`from`, `rules`).

In: documents with a `spec`. Out: what all of these kinds have, and the rules that they share.
Never: a conf; each kind has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.fields import Text
from kumafast.resources.resource import Frozen, Resource
from kumafast.resources.target_ref import MESH, TargetRef

ROLE_LABEL = "kuma.io/policy-role"
EFFECT_LABEL = "kuma.io/effect"
DISPLAY_NAME_LABEL = "kuma.io/display-name"
NAMESPACE_LABEL = "k8s.kuma.io/namespace"

SYSTEM = "system"
PRODUCER = "producer"
CONSUMER = "consumer"
WORKLOAD_OWNER = "workload-owner"

BESIDE_RULES = "fields 'to' and 'from' must be empty when 'rules' is defined"

C = TypeVar("C", bound=Frozen)


class SpiffeIdMatch(Frozen):
    """Who a client is."""

    type: Literal["", "Exact", "Prefix"] = ""
    value: Text = ""


class SniMatch(Frozen):
    """The server name that a client asks for."""

    type: Literal["", "Exact"] = ""
    value: Text = ""


class Match(Frozen):
    """Which requests a rule is for."""

    spiffe_id: SpiffeIdMatch | None = Field(default=None, alias="spiffeID")
    sni: SniMatch | None = None


class To(Frozen, Generic[C]):
    """What holds for requests to a destination."""

    target_ref: TargetRef = TargetRef()
    default: C | None = None

    @property
    def conf(self) -> C | None:
        """What it says; kinds with rules in place of one conf put these together."""
        return self.default


class From(Frozen, Generic[C]):
    """What holds for requests from a source."""

    target_ref: TargetRef = TargetRef()
    default: C | None = None


class Rule(Frozen, Generic[C]):
    """What holds for requests that come in and match; all of them without a match."""

    matches: tuple[Match, ...] = ()
    default: C | None = None


class UnmatchedRule(Frozen, Generic[C]):
    """What holds for all requests that come in, for kinds that do not tell them apart."""

    matches: ClassVar[tuple[Match, ...]] = ()

    default: C | None = None


class Targeted(Frozen):
    """Whom a policy is for."""

    target_ref: TargetRef | None = None

    @property
    def top(self) -> TargetRef:
        """Whom it is for; the mesh where nothing is said."""
        return TargetRef(kind=MESH) if self.target_ref is None else self.target_ref


class Spec(Targeted, Generic[C]):
    """What a policy says of what proxies send and take."""

    to: tuple[To[C], ...] = ()
    from_: tuple[From[C], ...] = Field(default=(), alias="from")
    rules: tuple[Rule[C], ...] = ()

    @property
    def is_inbound(self) -> bool:
        """Whether it says anything about what comes in."""
        return bool(self.from_ or self.rules)


class UnmatchedSpec(Targeted, Generic[C]):
    """What a policy says of what proxies send and take, for kinds that do not tell apart what comes in."""

    to: tuple[To[C], ...] = ()
    from_: tuple[From[C], ...] = Field(default=(), alias="from")
    rules: tuple[UnmatchedRule[C], ...] = ()

    @property
    def is_inbound(self) -> bool:
        """Whether it says anything about what comes in."""
        return bool(self.from_ or self.rules)


class OutboundSpec(Targeted, Generic[C]):
    """What a policy says of what proxies send, for kinds that are about nothing else."""

    from_: ClassVar[tuple[From[Any], ...]] = ()
    rules: ClassVar[tuple[Rule[Any], ...]] = ()

    to: tuple[To[C], ...] = ()


class ProxySpec(Targeted, Generic[C]):
    """What a policy says of proxies as a whole."""

    to: ClassVar[tuple[To[Any], ...]] = ()
    from_: ClassVar[tuple[From[Any], ...]] = ()
    rules: ClassVar[tuple[Rule[Any], ...]] = ()

    default: C | None = None


class TargetRefPolicy(Resource):
    """A policy that is merged with the others of its kind that are for the same proxy."""

    spec: Spec[Any] | UnmatchedSpec[Any] | OutboundSpec[Any] | ProxySpec[Any] = Spec()

    @property
    def display_name(self) -> str:
        """The name that users see; another than the resource's where that was made longer to be unique."""
        return self.labels.get(DISPLAY_NAME_LABEL) or self.name

    @property
    def role(self) -> str:
        """On whose behalf it was written."""
        return self.labels.get(ROLE_LABEL) or SYSTEM


def check_parts(spec: Spec[Any] | UnmatchedSpec[Any]) -> Iterator[Violation]:
    """A policy says something, and says what comes in in one way."""
    if spec.rules and (spec.to or spec.from_):
        yield Violation("spec", BESIDE_RULES)
    if not (spec.rules or spec.to or spec.from_):
        yield Violation("spec", "at least one of 'from', 'to' or 'rules' has to be defined")


def check_match(path: str, match: Match) -> Iterator[Violation]:
    """A match of a rule."""
    if match.spiffe_id is not None and not match.spiffe_id.value.startswith("spiffe://"):
        yield Violation(f"{path}.spiffeID", "must be a valid Spiffe ID: scheme is missing or invalid")
    if match.sni is not None:
        if not match.sni.type:
            yield Violation(f"{path}.sni.type", "must be set")
        if not match.sni.value:
            yield Violation(f"{path}.sni.value", "must be set")
