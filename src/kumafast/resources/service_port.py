"""The ports of services of the mesh: the number that clients use, and where instances take what comes for it.

In: documents in Kuma's 2.14 form. Out: `ServicePort`, frozen, and the rules that it breaks. Never: an instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from kumafast.errors import Violation
from kumafast.resources.fields import TEXT_LENGTH_MAX, Text, Whole
from kumafast.resources.resource import Frozen
from kumafast.resources.validation import check_port


def _number_or_name(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number or a string")
    if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX:
        raise ValueError(f"must be at most {TEXT_LENGTH_MAX} characters")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("must be a whole number of at most 64 bits")
    return value


PortReference = Annotated[
    Any, AfterValidator(_number_or_name), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})
]
"""A port of an instance, by its number or by its name."""


class ServicePort(Frozen):
    """A port of a service."""

    name: Text | None = None
    port: Whole = 0
    target_port: PortReference | None = None
    app_protocol: Text = ""

    @property
    def target(self) -> int | str:
        """The inbound of an instance that it leads to, by number or name; where nothing is said, that of its number."""
        target: int | str | None = self.target_port
        return self.port if target is None else target

    @property
    def protocol(self) -> str:
        """The application protocol, `tcp` where none is given."""
        return self.app_protocol or "tcp"

    @property
    def section_name(self) -> str:
        """How policies and resource identifiers name this port."""
        return self.name or str(self.port)


def check_ports(path: str, ports: Iterable[ServicePort]) -> Iterator[Violation]:
    """Numbers that are ports. Kuma takes others, and then has Envoys refuse what comes of them."""
    for i, port in enumerate(ports):
        yield from check_port(f"{path}[{i}].port", port.port)
        if isinstance(port.target_port, int):
            yield from check_port(f"{path}[{i}].targetPort", port.target_port)
