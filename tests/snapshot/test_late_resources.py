"""Resources whose bytes are made when they are first sent: a client that holds the version has none made."""

from __future__ import annotations

from kumafast.snapshot import LateResource, Layer, Snapshot, SnapshotCache
from kumafast.snapshot.resource import SECRET
from kumafast.stream.messages import Request, Variant
from kumafast.stream.session import Session


class Made:
    """A late resource, and how often its bytes were made."""

    def __init__(self, version: str = "v1") -> None:
        self.count = 0
        self.resource = LateResource(SECRET, "identity", self._make, version=version)

    def _make(self) -> bytes:
        self.count += 1
        return f"bytes {self.count}".encode()


def test_bytes_are_made_once_and_not_for_a_comparison() -> None:
    made, other = Made(), Made()
    assert made.resource == other.resource
    assert hash(made.resource) == hash(other.resource)
    assert made.resource != Made("v2").resource
    assert "identity" in repr(made.resource)
    assert (made.count, other.count) == (0, 0)
    assert (made.resource.body, made.resource.body, made.count) == (b"bytes 1", b"bytes 1", 1)


def test_a_snapshot_that_moves_makes_nothing() -> None:
    first, second, same = Made("v1"), Made("v2"), Made("v2")
    cache = SnapshotCache()
    snapshot = Snapshot([Layer([first.resource])])
    cache.set("node", snapshot)
    moved = snapshot.replaced({0: Layer([second.resource])})
    assert cache.set("node", moved)
    assert not cache.set("node", Snapshot([Layer([same.resource])]))
    assert moved.resource_versions(SECRET) == {"identity": "v2"}
    assert moved.digest(SECRET) == Snapshot([Layer([same.resource])]).digest(SECRET)
    assert (first.count, second.count, same.count) == (0, 0, 0)


def _asks(session: Session, **held: str) -> None:
    session.receive(Request(type_url=SECRET, subscribe=["identity"], initial_versions=held))


def test_a_client_that_holds_the_version_has_nothing_made() -> None:
    made = Made()
    snapshot = Snapshot([Layer([made.resource])])
    session = Session(Variant.DELTA)
    _asks(session, identity="v1")
    assert session.respond(snapshot) is None
    assert made.count == 0
    stranger = Session(Variant.DELTA)
    _asks(stranger, identity="v0")
    response = stranger.respond(snapshot)
    assert response is not None
    assert [each.body for each in response.resources] == [b"bytes 1"]
    assert made.count == 1
