"""Tokens: the good ones are taken, every other is refused, and none is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from kumafast.identity import signing_keys, tokens
from kumafast.identity.signing_keys import Keyset, SigningKeyError
from kumafast.identity.tokens import DataplaneClaims, TokenError, UserClaims, Verifier

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
WEB = DataplaneClaims(Name="web-1", Mesh="default", Type="dataplane")


@lru_cache
def _pem(which: str = "first") -> bytes:
    return signing_keys.create_signing_key()


@lru_cache
def _keys(**by_serial: str) -> Keyset:
    serials = by_serial or {"1": "first"}
    return signing_keys.dataplane_keyset(
        "default", {f"dataplane-token-signing-key-default-{serial}": _pem(which) for serial, which in serials.items()}
    )


class _Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


def _verifier() -> tuple[Verifier[DataplaneClaims], _Clock]:
    clock = _Clock()
    return Verifier(DataplaneClaims, clock=clock), clock


def _token(keys: Keyset | None = None, *, valid_for: timedelta = timedelta(hours=1)) -> str:
    return tokens.sign(WEB, keys or _keys(), valid_for=valid_for, now=NOW)


def test_a_good_token_says_who_its_holder_is_and_costs_one_signature() -> None:
    verifier, _ = _verifier()
    keys, token = _keys(), _token()
    for _ in range(1_000):
        assert verifier.verify(token, keys) == WEB
    assert verifier.signatures == 1


def test_a_token_looks_as_kumas_do() -> None:
    token = _token()
    header, body = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert header == {"alg": "RS256", "kid": "1", "typ": "JWT"}
    assert {name: body[name] for name in ("Name", "Mesh", "Tags", "Type", "Workload")} == {
        "Name": "web-1",
        "Mesh": "default",
        "Tags": {},
        "Type": "dataplane",
        "Workload": "",
    }
    assert body.keys() >= {"exp", "nbf", "iat", "jti"}


def test_a_token_ends_when_it_says_although_it_was_good_before() -> None:
    verifier, clock = _verifier()
    keys, token = _keys(), _token(valid_for=timedelta(minutes=5))
    verifier.verify(token, keys)
    clock.now += timedelta(minutes=5)
    with pytest.raises(TokenError, match="expired"):
        verifier.verify(token, keys)


def test_a_token_is_not_good_before_its_time() -> None:
    verifier, clock = _verifier()
    clock.now -= timedelta(minutes=6)
    with pytest.raises(TokenError, match="not valid yet"):
        verifier.verify(_token(), _keys())


def test_a_revoked_token_is_refused_at_once() -> None:
    verifier, _ = _verifier()
    keys, token = _keys(), _token()
    verifier.verify(token, keys)
    identifier = jwt.decode(token, options={"verify_signature": False})["jti"]
    with pytest.raises(TokenError, match="revoked"):
        verifier.verify(token, replace(keys, revoked=frozenset({identifier})))


def test_rotation_the_newest_signs_and_all_verify() -> None:
    verifier, _ = _verifier()
    old_token = _token(_keys(**{"9": "first"}))
    both = _keys(**{"9": "first", "10": "second"})
    new_token = _token(both)
    assert jwt.get_unverified_header(new_token)["kid"] == "10"
    assert verifier.verify(old_token, both) == verifier.verify(new_token, both) == WEB
    with pytest.raises(TokenError, match="key that is not known"):
        verifier.verify(old_token, _keys(**{"10": "second"}))


def test_public_keys_are_enough_to_verify() -> None:
    public = (
        _keys().public["1"].public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    offline = signing_keys.public_keyset({"1": public})
    verifier, _ = _verifier()
    assert verifier.verify(_token(), offline) == WEB
    with pytest.raises(SigningKeyError, match="generate signing-key"):
        offline.signer()
    in_secret = signing_keys.dataplane_keyset("default", {"dataplane-token-signing-key-default-1": public})
    assert verifier.verify(_token(), in_secret) == WEB


def test_keys_of_no_use_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    keys = signing_keys.dataplane_keyset("default", {"dataplane-token-signing-key-default-1": b"hush"})
    assert keys.public == {}
    assert "dataplane-token-signing-key-default-1" in caplog.text
    assert "hush" not in caplog.text


def test_keys_of_a_mesh_whose_name_goes_on_are_not_mixed_up() -> None:
    secrets = {"dataplane-token-signing-key-prod-eu-1": _pem()}
    assert set(signing_keys.dataplane_keyset("prod", secrets).public) == {"eu-1"}
    assert set(signing_keys.dataplane_keyset("prod-eu", secrets).public) == {"1"}


def _forge(claims: dict[str, Any], **changes: Any) -> str:
    document = {"Name": "web-1", "Mesh": "default", "exp": NOW.timestamp() + 60, **claims}
    kid, key = _keys().signer()
    arguments: dict[str, Any] = {"key": key, "algorithm": "RS256", "headers": {"kid": kid}, **changes}
    return jwt.encode({name: value for name, value in document.items() if value is not None}, **arguments)


def _segment(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def _hs256_with_the_public_key() -> str:
    import hashlib
    import hmac

    public = (
        _keys().public["1"].public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head = f"{_segment({'alg': 'HS256', 'kid': '1'})}.{_segment({'Name': 'web-1', 'exp': NOW.timestamp() + 60})}"
    signature = hmac.new(public, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _bad_tokens() -> Iterator[tuple[str, str, str]]:
    good = _token()
    head, body, signature = good.split(".")
    yield "nothing", "", "not a JWT"
    yield "words", "let me in", "not a JWT"
    yield "alg none", f"{_segment({'alg': 'none', 'kid': '1'})}.{body}.", "RS256"
    yield "HS256 with the public key", _hs256_with_the_public_key(), "RS256"
    yield "another algorithm", _forge({}, algorithm="RS512"), "RS256"
    yield "another's key", _token(_keys(**{"1": "second"})), "signature"
    yield "unknown kid", _token(_keys(**{"7": "second"})), "key that is not known"
    yield "no kid", _forge({}, headers={}), "key that is not known"
    yield "kid of another type", f"{_segment({'alg': 'RS256', 'kid': 1})}.{body}.{signature}", "JWT|not known"
    yield "other claims", f"{head}.{_segment({'Name': 'admin', 'exp': 9e9})}.{signature}", "signature"
    yield "cut off", good[:-4], "JWT|signature"
    yield "no end", _forge({"exp": None}), "until when"
    yield "an end that is no number", _forge({"exp": "soon"}), "signature|until when|numbers"
    yield "a name that is no text", _forge({"Name": ["web-1"]}), "claims"
    yield "too long", good + "A" * 20_000, "too long"
    yield "a surrogate", good + "\ud800", "JWT|signature"


@pytest.mark.parametrize(("case", "token", "reason"), tuple(_bad_tokens()), ids=lambda value: str(value)[:25])
def test_refuses_with_the_reason_and_without_the_token(case: str, token: str, reason: str) -> None:
    verifier, _ = _verifier()
    with pytest.raises(TokenError, match=reason) as caught:
        verifier.verify(token, _keys())
    assert not token or token not in str(caught.value)


@given(st.binary(max_size=200) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes) -> None:
    verifier, _ = _verifier()
    text = garbage.decode("latin-1")
    with pytest.raises(TokenError):
        verifier.verify(text, _keys())


@given(data=st.data())
def test_no_change_of_a_good_token_is_good(data: st.DataObject) -> None:
    good = _token()
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != good[place]))
    changed = good[:place] + other + good[place + 1 :]
    verifier, _ = _verifier()
    try:
        claims = verifier.verify(changed, _keys())
    except TokenError:
        return
    # The last character of a segment has bits that mean nothing: the same bytes may be written in several ways.
    assert claims == WEB
    pad = "=="
    assert [base64.urlsafe_b64decode(part + pad) for part in changed.split(".")] == [
        base64.urlsafe_b64decode(part + pad) for part in good.split(".")
    ]


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VERIFIED_MAX", 3)
    verifier, _ = _verifier()
    keys = _keys()
    issued = [_token(keys) for _ in range(5)]
    for token in issued:
        verifier.verify(token, keys)
    assert len(verifier._verified) == 3


TAGS = ({"kuma.io/service": "web", "version": "v1"}, {"kuma.io/service": "web-admin"})


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, None),
        ({"Name": "web-1"}, None),
        ({"Name": "web-2"}, "for dataplane web-2"),
        ({"Mesh": "default"}, None),
        ({"Mesh": "other"}, "for mesh other"),
        ({"Type": "dataplane"}, None),
        ({"Type": "ingress"}, "not one of a dataplane"),
        ({"Tags": {"kuma.io/service": ["web", "web-admin"]}}, None),
        ({"Tags": {"kuma.io/service": ["web"]}}, "value of the tag kuma.io/service"),
        ({"Tags": {"version": ["v1"]}}, "value of the tag version"),
    ],
)
def test_a_token_is_for_those_it_names(claims: dict[str, Any], reason: str | None) -> None:
    mismatch = DataplaneClaims(**claims).mismatch(mesh="default", name="web-1", tag_sets=TAGS)
    assert mismatch is None if reason is None else reason in (mismatch or "")


def test_a_token_for_tags_is_not_for_a_dataplane_without_any() -> None:
    claims = DataplaneClaims(Tags={"kuma.io/service": ("web",)})
    assert claims.mismatch(mesh="default", name="web-1", tag_sets=()) is not None


def test_users_have_a_name_and_groups() -> None:
    keys = signing_keys.user_keyset({"user-token-signing-key-1": _pem()})
    claims = UserClaims(Name="anna", Groups=("mesh-system:admin",))
    verifier = Verifier(UserClaims, clock=lambda: NOW.timestamp())
    assert verifier.verify(tokens.sign(claims, keys, valid_for=timedelta(days=1), now=NOW), keys) == claims
    with pytest.raises(TokenError, match="claims of its kind"):
        verifier.verify(tokens.sign(DataplaneClaims(), keys, valid_for=timedelta(days=1), now=NOW), keys)
