"""What every resource has: a type, a key, labels.

In: nothing but names. Out: `ResourceType` (what the catalogue knows of a kind), `ResourceKey` (where a resource lives),
`Resource` (the frozen value that all kinds extend). Never: storing, matching, or anything of Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NewType, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel

from kumafast.errors import Violation
from kumafast.resources.fields import FrozenMap, Tags, Text

if TYPE_CHECKING:
    from kumafast.resources.mesh import Mesh

MeshName = NewType("MeshName", str)
DataplaneName = NewType("DataplaneName", str)


class Scope(Enum):
    """Whether a resource belongs to one mesh or to all."""

    GLOBAL = "Global"
    MESH = "Mesh"


@dataclass(frozen=True, slots=True)
class PolicyTraits:
    """What the catalogue knows of a kind of policy beyond being a kind of resource."""

    order: int
    """Where it is applied among the kinds that change the same message; lower first."""
    is_target_ref: bool = False
    """True for the family with `spec.targetRef`; False for that with sources and destinations."""
    has_to: bool = False
    has_from: bool = False
    has_rules: bool = False
    is_from_as_rules: bool = False
    """True where `from` says the same as `rules` without matches."""
    is_listed: bool = False
    """True where all that is said of what comes in counts, in order, instead of one conf merged from it."""
    has_cases: bool = False
    """True where what is said of some of those who send counts beside what is said of all."""
    is_to_of_gateways: bool = False
    """True where `to` is about what gateways send, and about nothing else."""
    is_by_inbound: bool = False
    """True in the family with sources where the winner is chosen for each inbound, by what its destinations say."""
    mesh_fields: tuple[str, ...] = ()
    """The fields of the Mesh that count for what it says: with one of these it says something else."""
    asks_sender: bool = False
    """True beside that where requests are told apart by the tags of who sends them, so that its sidecar says them."""
    counts_outside: bool = False
    """True beside that where it holds for what is sent to external services too, where nobody else could see to it."""
    is_by_service: bool = False
    """True where Kuma's older API shows it beside the service that it is about, and not beside each outbound to it."""
    both_ways: tuple[str, ...] = ()
    """The fields of what is said of all that comes in that hold for all that is sent too."""
    is_routing: bool = False
    """True where it says what outbounds lead to: a proxy for which that differs is another as a whole."""
    successor: str = ""
    """The kind of the other family with the same purpose; where a user wrote one of those, this one gives way."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """What the catalogue knows of one kind of resource. Names and paths are Kuma's 2.14 ones."""

    name: str
    scope: Scope
    path: str
    singular: str
    plural: str
    short_name: str = ""
    is_read_only: bool = False
    is_in_federation: bool = False
    keeps_mesh: bool = False
    """True where a mesh cannot be deleted while a resource of this type is in it; others go with their mesh."""
    owner: str | None = None
    """The type whose resource of the same mesh and name takes this one along when it is deleted."""
    policy: PolicyTraits | None = None
    """What kind of policy it is; None for what is no policy."""
    is_called_policy: bool = False
    """True for what Kuma lists among the policies though no proxy is bound by it."""
    is_secret: bool = False
    """True for what only administrators may see and what stores seal."""
    has_status: bool = False
    """True where the API shows a `status` beside what a user wrote; what a document says there is not read."""
    other_path: str = ""
    """An older path of the same collection."""


class ResourceKey(NamedTuple):
    """Where a resource lives: its type's name, its mesh (empty for global types), its name."""

    type: str
    mesh: str
    name: str


class Frozen(BaseModel):
    """A read-only value whose JSON form is Kuma's: camelCase names, absent where not set; unknown fields are left out.

    Every default is what protobuf takes for a field that is not set (0, "", false, no elements, no message), so leaving
    a field out and writing its default are the same value.
    """

    # A process meets few of the forms that there are: each is built when the first value of it comes.
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, defer_build=True
    )

    def lean(self) -> Self:
        """The same value, with one set of the names of its given fields for all that have the same ones.

        Each value has such a set from pydantic, 216 to 728 bytes, more than all else that a small one takes. A value is
        never written to, and a copy of it has a set of its own, so nobody ever writes to a shared one. For values that
        this process makes in numbers: the sets of those are few, and stay.
        """
        names = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _GIVEN.setdefault(frozenset(names), names))
        return self


_GIVEN: Final[dict[frozenset[str], set[str]]] = {}

TODAYS: Final = object()
"""The context in which a document is validated that has no form of older versions."""


class Resource(Frozen):
    """A value that a user stores. Flat: the fields of the specification stand beside `name`, `mesh` and `labels`."""

    type: ClassVar[ResourceType]
    old_names: ClassVar[tuple[bytes, ...]] = ()
    """JSON in which none of these stands has nothing to be `translated`; none where that has to be looked at."""

    name: Text
    mesh: Text = ""
    labels: Tags = FrozenMap()

    @property
    def key(self) -> ResourceKey:
        """Where the store keeps this resource."""
        return ResourceKey(self.type.name, self.mesh, self.name)

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a document with the forms of older versions replaced by today's."""
        return fields

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, fields: Any, info: ValidationInfo) -> Any:
        return cls.translated(fields) if info.context is not TODAYS and isinstance(fields, dict) else fields

    @classmethod
    def initial(cls, mesh: str) -> tuple[Resource, ...]:
        """What of this kind is created together with a mesh."""
        return ()

    @classmethod
    def initial_routing(cls, mesh: str) -> tuple[Resource, ...]:
        """What of this kind is created with a mesh where its traffic is to be permitted and routed from the start."""
        return ()

    def remarks(self) -> Iterator[str]:
        """What whoever writes this resource should know, though nothing is wrong with it."""
        return iter(())

    def remarks_in(self, mesh: Mesh) -> Iterator[str]:
        """What there is to know besides, given the mesh that this resource is in."""
        return iter(())

    def violations(self) -> Iterator[Violation]:
        """Every rule of its kind that this resource breaks, in order; those of names and meshes are not of its kind."""
        return iter(())
