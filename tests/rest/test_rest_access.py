"""The authorization matrix of the API: every kind of request by every kind of client, each cell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from tests import builders
from tests.rest.fakes import Convergence, services

from kumafast.identity import signing_keys, tokens
from kumafast.identity.access import AnonymousAccess, Right
from kumafast.identity.signing_keys import Keyset
from kumafast.identity.token_keys import TokenKeys
from kumafast.identity.tokens import DataplaneClaims, UserClaims
from kumafast.resources import GlobalSecret, ResourceKey, Secret, secret_data, to_document
from kumafast.rest.access import AccessRules, needed
from kumafast.rest.api import create_api
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

HERE = ("127.0.0.1", 40000)
ELSEWHERE = ("192.0.2.7", 40000)
LOCAL_NAME = "http://127.0.0.1:5681"
HUSH = secret_data(b"hush")


@lru_cache
def _pem(which: str) -> bytes:
    return signing_keys.create_signing_key()


def _user_keys(pem: bytes, kid: str = "1") -> Keyset:
    return signing_keys.user_keyset({signing_keys.user_key_name(kid): pem})


def _user(name: str, *groups: str, keys: Keyset | None = None, **when: Any) -> str:
    times = {"valid_for": timedelta(hours=1), "now": datetime.now(UTC), **when}
    return tokens.sign(UserClaims(Name=name, Groups=groups), keys or _user_keys(_pem("users")), **times)


def _dataplane() -> str:
    keys = signing_keys.dataplane_keyset("default", {"dataplane-token-signing-key-default-1": _pem("dataplanes")})
    claims = DataplaneClaims(Name="web-1", Mesh="default", Type="dataplane")
    return tokens.sign(claims, keys, valid_for=timedelta(hours=1), now=datetime.now(UTC))


def _revoked() -> str:
    return _user("anna", "mesh-system:admin", now=datetime.now(UTC) - timedelta(minutes=1))


@lru_cache
def _the_revoked() -> str:
    return _revoked()


def _hs256() -> str:
    key = _user_keys(_pem("users")).public["1"]
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = {"Name": "anna", "Groups": ["mesh-system:admin"], "exp": 9e9}
    import hashlib
    import hmac

    head, _, _ = jwt.encode(body, "0" * 64, algorithm="HS256", headers={"kid": "1"}).rpartition(".")
    signature = hmac.new(public, head.encode(), hashlib.sha256).digest()
    return f"{head}.{jwt.utils.base64url_encode(signature).decode()}"


@dataclass(frozen=True)
class Client:
    """Who asks: from where, with which headers."""

    peer: tuple[str, int] = HERE
    headers: dict[str, str] = field(default_factory=dict)
    base: str = LOCAL_NAME


def _bearer(token: str, peer: tuple[str, int] = ELSEWHERE) -> Client:
    return Client(peer, {"Authorization": f"Bearer {token}"})


ADMIN, EDITOR, READER, ANONYMOUS, NOBODY = "admin", "editor", "reader", "anonymous", "nobody"


def _clients() -> dict[str, tuple[Client, str]]:
    admin = _user("root", "mesh-system:admin")
    return {
        "localhost": (Client(), ADMIN),
        "localhost by name": (Client(base="http://localhost:5681"), ADMIN),
        "localhost in IPv6": (Client(("::1", 40000), base="http://[::1]:5681"), ADMIN),
        "a page of the API itself": (
            Client(headers={"Origin": LOCAL_NAME, "Sec-Fetch-Site": "same-origin"}),
            ADMIN,
        ),
        "admin from elsewhere": (_bearer(admin), ADMIN),
        "editor of the mesh": (_bearer(_user("ed", "mesh-editor:default")), EDITOR),
        "editor of the mesh, from here": (_bearer(_user("ed", "mesh-editor:default"), HERE), EDITOR),
        "editor of another mesh": (_bearer(_user("ed", "mesh-editor:empty")), READER),
        "user": (_bearer(_user("anna", "team-a")), READER),
        "a user called as the administrator": (_bearer(_user("mesh-system:admin")), READER),
        "remote anonymous": (Client(ELSEWHERE), ANONYMOUS),
        "remote that asks for localhost": (Client(ELSEWHERE, base="http://localhost:5681"), ANONYMOUS),
        "forged-local: another Host": (Client(base="http://evil.example:5681"), ANONYMOUS),
        "forged-local: a name like localhost": (Client(base="http://localhost.evil.example:5681"), ANONYMOUS),
        "forged-local: a page of another site": (Client(headers={"Origin": "http://evil.example"}), ANONYMOUS),
        "forged-local: another port's page": (Client(headers={"Origin": "http://127.0.0.1:8080"}), ANONYMOUS),
        "forged-local: a page without origin": (Client(headers={"Origin": "null"}), ANONYMOUS),
        "forged-local: cross-site": (Client(headers={"Sec-Fetch-Site": "cross-site"}), ANONYMOUS),
        "forged-local: same-site": (Client(headers={"Sec-Fetch-Site": "same-site"}), ANONYMOUS),
        "forged-local: X-Forwarded-For": (Client(headers={"X-Forwarded-For": "127.0.0.1"}), ANONYMOUS),
        "forged-local: Forwarded": (Client(headers={"Forwarded": "for=127.0.0.1"}), ANONYMOUS),
        "forged-local: Via": (Client(headers={"Via": "1.1 proxy"}), ANONYMOUS),
        "forged-local: X-Real-IP": (Client(ELSEWHERE, {"X-Real-IP": "127.0.0.1"}), ANONYMOUS),
        "garbage from localhost": (_bearer("garbage", HERE), NOBODY),
        "garbage from elsewhere": (_bearer("garbage"), NOBODY),
        "another scheme": (Client(headers={"Authorization": "Basic cm9vdDpyb290"}), NOBODY),
        "an empty token": (Client(headers={"Authorization": "Bearer "}), NOBODY),
        "a dataplane's token": (_bearer(_dataplane()), NOBODY),
        "expired": (_bearer(_user("a", "mesh-system:admin", now=datetime.now(UTC) - timedelta(hours=2))), NOBODY),
        "not yet valid": (_bearer(_user("a", "mesh-system:admin", now=datetime.now(UTC) + timedelta(days=1))), NOBODY),
        "revoked": (_bearer(_the_revoked()), NOBODY),
        "unknown kid": (_bearer(_user("a", "mesh-system:admin", keys=_user_keys(_pem("others"), "9"))), NOBODY),
        "another's key": (_bearer(_user("a", "mesh-system:admin", keys=_user_keys(_pem("others")))), NOBODY),
        "alg none": (
            _bearer(jwt.encode({"Name": "a", "exp": 9e9}, "", algorithm="none", headers={"kid": "1"})),
            NOBODY,
        ),
        "HS256 with the public key": (_bearer(_hs256()), NOBODY),
    }


CLIENTS = _clients()


@dataclass(frozen=True)
class Ask:
    """A request, who may make it, and what it answers then."""

    method: str
    path: str
    allowed: frozenset[str]
    status: int
    body: dict[str, Any] | None = None


def _ask(method: str, path: str, allowed: str, status: int, body: dict[str, Any] | None = None) -> Ask:
    return Ask(method, path, frozenset(allowed.split()), status, body)


_ALL = "admin editor reader anonymous"
_WRITERS = "admin editor"
_DATAPLANE = to_document(builders.dataplane("web-9"))
_TIMEOUT = {
    "type": "MeshTimeout",
    "mesh": "default",
    "name": "t",
    "spec": {
        "targetRef": {"kind": "Mesh"},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": "1s"}}],
    },
}
ASKS = (
    _ask("GET", "/", _ALL, 200),
    _ask("GET", "/who-am-i", _ALL, 200),
    _ask("GET", "/config", _ALL, 200),
    _ask("GET", "/_resources", _ALL, 200),
    _ask("GET", "/policies", _ALL, 200),
    _ask("GET", "/global-insights", _ALL, 200),
    _ask("GET", "/openapi.json", _ALL, 200),
    _ask("GET", "/meshes", _ALL, 200),
    _ask("GET", "/meshes/default", _ALL, 200),
    _ask("GET", "/meshes/default/dataplanes", _ALL, 200),
    _ask("GET", "/dataplanes", _ALL, 200),
    _ask("GET", "/meshes/default/dataplanes/_overview", _ALL, 200),
    _ask("HEAD", "/meshes/default/dataplanes", _ALL, 200),
    _ask("OPTIONS", "/meshes/default/dataplanes", _ALL, 204),
    _ask("GET", "/nowhere", _ALL, 404),
    _ask("PUT", "/meshes/default/dataplanes/web-9", _WRITERS, 201, _DATAPLANE),
    _ask("DELETE", "/meshes/default/dataplanes/web-1", _WRITERS, 200),
    _ask("PUT", "/meshes/default/meshtimeouts/t", _WRITERS, 201, _TIMEOUT),
    _ask("POST", "/meshes/default/dataplanes", _WRITERS, 405),
    _ask("PUT", "/meshes/other/dataplanes/web-9", ADMIN, 201, {**_DATAPLANE, "mesh": "other"}),
    _ask("PUT", "/meshes/new", ADMIN, 201, {"type": "Mesh", "name": "new"}),
    _ask("PUT", "/meshes/default", ADMIN, 200, {"type": "Mesh", "name": "default"}),
    _ask("DELETE", "/meshes/empty", ADMIN, 200),
    _ask("PUT", "/nowhere/x", ADMIN, 404, {}),
    _ask("GET", "/meshes/default/secrets", ADMIN, 200),
    _ask("GET", "/meshes/default/secrets/hush", ADMIN, 200),
    _ask("GET", "/secrets", ADMIN, 200),
    _ask(
        "PUT", "/meshes/default/secrets/s", ADMIN, 201, {"type": "Secret", "mesh": "default", "name": "s", "data": HUSH}
    ),
    _ask("DELETE", "/meshes/default/secrets/hush", ADMIN, 200),
    _ask("GET", "/globalsecrets", ADMIN, 200),
    _ask("GET", "/global-secrets/hush", ADMIN, 200),
    _ask("PUT", "/globalsecrets/s", ADMIN, 201, {"type": "GlobalSecret", "name": "s", "data": HUSH}),
    _ask("DELETE", "/global-secrets/hush", ADMIN, 200),
    _ask("POST", "/tokens/dataplane", ADMIN, 200, {"mesh": "default", "validFor": "1h"}),
    _ask("POST", "/tokens/user", ADMIN, 200, {"name": "x", "validFor": "1h"}),
    _ask("GET", "/tokens/user", ADMIN, 405),
    _ask("GET", "/meshes/default/dataplanes/web-1/_config", ADMIN, 404),
    _ask("GET", "/meshes/default/dataplanes/web-1/xds", ADMIN, 404),
    _ask("GET", "/meshes/default/dataplanes/web-1/stats", ADMIN, 404),
    _ask("GET", "/meshes/default/dataplanes/web-1/clusters", ADMIN, 404),
)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    opened = MemoryStore()
    for mesh in ("default", "other", "empty"):
        await opened.put(builders.mesh(name=mesh))
    await opened.put(builders.dataplane("web-1"))
    await opened.put(Secret(mesh="default", name="hush", data=HUSH))
    await opened.put(GlobalSecret(name="hush", data=HUSH))
    await opened.put(GlobalSecret(name="user-token-signing-key-1", data=secret_data(_pem("users"))))
    key = Secret(mesh="default", name="dataplane-token-signing-key-default-1", data=secret_data(_pem("dataplanes")))
    await opened.put(key)
    revoked = jwt.decode(_the_revoked(), options={"verify_signature": False})["jti"]
    await opened.put(GlobalSecret(name="user-token-revocations", data=secret_data(f"x,{revoked}".encode())))
    yield opened
    await opened.close()


async def _send(store: MemoryStore, client: Client, ask: Ask, **rules: Any) -> httpx.Response:
    keys = TokenKeys(store)
    await keys.load()
    behind = services(store, Convergence())
    access = AccessRules(verify=keys.verify_user, **rules)
    app = create_api(replace(behind, token_keys=keys, access=access))
    transport = httpx.ASGITransport(app=app, client=client.peer)
    async with httpx.AsyncClient(transport=transport, base_url=client.base, headers=client.headers) as http:
        return await http.request(ask.method, ask.path, json=ask.body)


def _expected(role: str, ask: Ask) -> int:
    if role in ask.allowed:
        return ask.status
    return 401 if role in (NOBODY, ANONYMOUS) else 403


@pytest.mark.parametrize("who", CLIENTS)
async def test_every_cell(store: MemoryStore, who: str) -> None:
    client, role = CLIENTS[who]
    for ask in ASKS:
        before = await store.revision()
        answer = await _send(store, client, ask)
        expected = _expected(role, ask)
        assert answer.status_code == expected, f"{who}: {ask.method} {ask.path}"
        if expected in (401, 403):
            assert await store.revision() == before
            assert "hush" not in answer.text.replace("/hush", "")
            assert answer.json()["status"] == expected if ask.method != "HEAD" else True
            assert ("www-authenticate" in answer.headers) == (expected == 401)
        elif await store.revision() != before:
            await _restore(store)


async def _restore(store: MemoryStore) -> None:
    await store.put(builders.dataplane("web-1"))
    await store.put(builders.mesh(name="empty"))
    await store.put(Secret(mesh="default", name="hush", data=HUSH))
    await store.put(GlobalSecret(name="hush", data=HUSH))
    for kind, mesh, name in (
        ("Dataplane", "default", "web-9"),
        ("Dataplane", "other", "web-9"),
        ("MeshTimeout", "default", "t"),
        ("Secret", "default", "s"),
        ("GlobalSecret", "", "s"),
        ("Mesh", "", "new"),
    ):
        if any(each.resource.key == (kind, mesh, name) for each in (await store.list(kind)).items):
            await store.delete(ResourceKey(kind, mesh, name))


@pytest.mark.parametrize(
    ("access", "read", "write"),
    [(AnonymousAccess.NONE, 401, 401), (AnonymousAccess.READ, 200, 401), (AnonymousAccess.WRITE, 200, 201)],
)
async def test_what_the_anonymous_may_is_a_setting(
    store: MemoryStore, access: AnonymousAccess, read: int, write: int
) -> None:
    stranger = Client(ELSEWHERE)
    asks = {(ask.method, ask.path): ask for ask in ASKS}
    listed = await _send(store, stranger, asks["GET", "/meshes/default/dataplanes"], anonymous=access)
    written = await _send(store, stranger, asks["PUT", "/meshes/default/dataplanes/web-9"], anonymous=access)
    assert (listed.status_code, written.status_code) == (read, write)
    # As in Kuma, secrets and tokens are an administrator's in any case.
    for ask in ASKS:
        if "ecrets" in ask.path or "tokens" in ask.path:
            assert (await _send(store, stranger, ask, anonymous=access)).status_code == 401


async def test_this_machine_need_not_be_trusted(store: MemoryStore) -> None:
    ask = _ask("DELETE", "/meshes/default/dataplanes/web-1", "", 200)
    assert (await _send(store, Client(), ask, is_localhost_admin=False)).status_code == 401


async def test_who_has_shown_a_certificate_is_an_administrator(store: MemoryStore) -> None:
    ask = _ask("GET", "/who-am-i", "", 200)
    answer = await _send(store, Client(ELSEWHERE), ask, is_certified=True)
    assert answer.json()["groups"] == ["mesh-system:admin", "mesh-system:authenticated"]


async def test_two_tokens_are_none(store: MemoryStore) -> None:
    keys = TokenKeys(store)
    await keys.load()
    behind = replace(services(store, Convergence()), access=AccessRules(verify=keys.verify_user))
    transport = httpx.ASGITransport(app=create_api(behind))
    headers = [("Authorization", f"Bearer {_user('a')}"), ("Authorization", f"Bearer {_user('b')}")]
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL_NAME) as http:
        assert (await http.get("/meshes", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "right", "mesh"),
    [
        ("GET", "/meshes/default/secrets/", Right.ADMIN, ""),
        ("HEAD", "/secrets", Right.ADMIN, ""),
        ("GET", "//secrets", Right.ADMIN, ""),
        ("PUT", "/meshes/a/dataplanes/b", Right.WRITE, "a"),
        ("PUT", "/meshes/a/meshes/b", Right.WRITE, ""),
        ("PUT", "/meshes/a", Right.WRITE, ""),
        ("DELETE", "/", Right.ADMIN, ""),
        ("TRACE", "/meshes", Right.WRITE, ""),
        ("PATCH", "/meshes/a/unknown/b", Right.ADMIN, ""),
        ("POST", "/_diff", Right.ADMIN, ""),
        ("POST", "/meshes/a/_diff", Right.WRITE, "a"),
        ("GET", "/meshes/a/_diff", Right.WRITE, "a"),
        ("POST", "/meshes/a/_diff/b", Right.ADMIN, ""),
        ("GET", "/meshes/a/_rejections", Right.READ, ""),
    ],
)
def test_what_a_request_needs(method: str, path: str, right: Right, mesh: str) -> None:
    assert needed(method, path) == (right, mesh)


async def test_tokens_that_are_issued_are_good(store: MemoryStore) -> None:
    keys = TokenKeys(store)
    await keys.load()
    behind = replace(services(store, Convergence()), token_keys=keys, access=AccessRules(verify=keys.verify_user))
    transport = httpx.ASGITransport(app=create_api(behind))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL_NAME) as http:
        body = {"name": "ed", "groups": ["mesh-editor:default"], "validFor": "30m"}
        token = (await http.post("/tokens/user", json=body)).text
        shown = await http.get("/who-am-i", headers={"Authorization": f"Bearer {token}"})
        assert shown.json() == {"name": "ed", "groups": ["mesh-editor:default", "mesh-system:authenticated"]}
        for mesh in ("default", "other"):
            wanted = {"name": "web-1", "mesh": mesh, "tags": {"kuma.io/service": ["web"]}, "validFor": "1h"}
            answer = await http.post("/tokens/dataplane", json=wanted)
            claims = keys.verify_dataplane(answer.text, mesh=mesh)
            assert (claims.name, claims.mesh, claims.tags) == ("web-1", mesh, {"kuma.io/service": ("web",)})
        assert (await http.post("/tokens/dataplane", json={"mesh": "gone", "validFor": "1h"})).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/tokens/user", {}, ["name", "validFor"]),
        ("/tokens/user", {"name": 1, "groups": "g", "validFor": "1h"}, ["name", "groups"]),
        ("/tokens/user", {"name": "a", "validFor": "-1h"}, ["validFor"]),
        ("/tokens/user", {"name": "a", "validFor": "soon"}, ["validFor"]),
        ("/tokens/dataplane", {"validFor": "1h"}, ["mesh"]),
        ("/tokens/dataplane", {"mesh": "default", "type": "ingress", "validFor": "1h"}, ["type"]),
        ("/tokens/dataplane", {"mesh": "default", "tags": {"a": "b"}, "validFor": "1h"}, ["tags['a']"]),
        ("/tokens/dataplane", {"mesh": "default", "tags": [], "validFor": "1h"}, ["tags"]),
    ],
)
async def test_a_request_for_a_token_that_makes_no_sense(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], fields: list[str]
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["invalid_parameters"]] == fields
