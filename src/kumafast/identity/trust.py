"""Whom a mesh trusts while its authority changes: the old and the new one, until the last certificate has moved over.

In: what was so far, the authority that the Mesh asks for. Out: the next `Trust`, to be stored.
Never: a clock, waiting, a store. `rollout` takes the steps.

The order is what keeps traffic alive: first every proxy trusts the new authority too, only then certificates are signed
by it, and the old authority goes when the last certificate that it signed has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import orjson

from kumafast.identity.authority import CLOCK_SKEW, Authority
from kumafast.resources import Secret, secret_data
from kumafast.resources.mesh import CertificateAuthority


@dataclass(frozen=True, slots=True)
class Trusted:
    """An authority whose certificates are taken; from `until` on they are not. None: as long as it signs."""

    digest: str
    chain: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Who signs, and all that are trusted, in the order in which they came."""

    backend: CertificateAuthority
    digest: str
    trusted: tuple[Trusted, ...]

    @classmethod
    def of(cls, backend: CertificateAuthority, authority: Authority) -> Trust:
        """The beginning: one authority signs and is trusted."""
        return cls(backend, authority.digest, (_trusted(authority),))

    def trusts(self, digest: str) -> bool:
        """Whether an authority is trusted without an end."""
        return any(each.digest == digest and each.until is None for each in self.trusted)

    def with_authority(self, authority: Authority) -> Trust:
        """The first step: the new authority is trusted as well."""
        others = tuple(each for each in self.trusted if each.digest != authority.digest)
        return replace(self, trusted=(*others, _trusted(authority)))

    def signed_by(
        self, backend: CertificateAuthority, authority: Authority, *, now: datetime, lifetime: timedelta
    ) -> Trust:
        """The second step: it signs, and the others end with the last certificate, of at most `lifetime`, they signed.

        ValueError where it is not trusted yet.
        """
        if not self.trusts(authority.digest):
            raise ValueError("an authority must be trusted before it signs")
        until = now + lifetime + CLOCK_SKEW
        trusted = tuple(
            each if each.digest == authority.digest or each.until is not None else replace(each, until=until)
            for each in self.trusted
        )
        return Trust(backend, authority.digest, trusted)

    def at(self, now: datetime) -> Trust:
        """The last step: without those whose time has come."""
        return replace(self, trusted=tuple(each for each in self.trusted if each.until is None or now < each.until))

    @property
    def next_end(self) -> datetime | None:
        """When the next of them ends."""
        return min((each.until for each in self.trusted if each.until is not None), default=None)

    def to_secret(self, mesh: str) -> Secret:
        """As it is stored: a secret, since a backend's configuration may hold its key."""
        document = {
            "backend": self.backend.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "digest": self.digest,
            "trusted": [
                {"digest": each.digest, "chain": each.chain, "until": each.until and each.until.isoformat()}
                for each in self.trusted
            ],
        }
        return Secret(mesh=mesh, name=trust_name(mesh), data=secret_data(orjson.dumps(document)))

    @classmethod
    def from_content(cls, content: bytes) -> Trust:
        """What `to_secret` wrote. ValueError where it is something else."""
        try:
            document = orjson.loads(content)
            trusted = tuple(
                Trusted(each["digest"], each["chain"], _time(each["until"])) for each in document["trusted"]
            )
            return cls(CertificateAuthority.model_validate(document["backend"]), document["digest"], trusted)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what a mesh trusts: {error!r}") from None


def trust_name(mesh: str) -> str:
    """The secret in which a mesh keeps whom it trusts."""
    return f"{mesh}.ca-trust"


def _trusted(authority: Authority) -> Trusted:
    return Trusted(authority.digest, authority.chain.decode())


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
