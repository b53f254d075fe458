"""Settings: a flag beats a variable beats the file beats the default, and what cannot be is said clearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kumafast.errors import SettingsError
from kumafast.settings import Settings, load


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "kumafast.yaml"
    file.write_text("api-port: 1\ndp_port: 2\ndiagnostics-port: 3\ndp-tls: no\ndebounce_ms: 7\n")
    environ = {"KUMAFAST_API_PORT": "10", "KUMAFAST_DP_PORT": "20", "UNRELATED": "x"}
    settings = load({"api_port": 100, "dp_port": None}, config=file, environ=environ)
    assert (settings.api_port, settings.dp_port, settings.diagnostics_port) == (100, 20, 3)
    assert (settings.dp_tls, settings.debounce_ms, settings.zone) == (False, 7.0, "default")


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({}, {"KUMAFAST_API_PORT": "many"}, "KUMAFAST_API_PORT: expected a number, got 'many'"),
        ({}, {"KUMAFAST_DP_TLS": "perhaps"}, "KUMAFAST_DP_TLS: expected true or false"),
        ({"api_port": 70000}, {}, r"api_port must be in the range \[0, 65535\]"),
        ({"csds": "perhaps"}, {}, "csds must be off, loopback or on, got 'perhaps'"),
        ({"dp_auth": "magic"}, {}, "dp_auth must be token or none"),
        ({"anonymous_access": "all"}, {}, "anonymous_access must be none, read or write"),
        ({"api_tls_port": 70000}, {}, "api_tls_port must be in the range"),
        ({"api_tls_cert": "a.pem"}, {}, "api_tls_cert and api_tls_key go together"),
        ({"api_client_ca": "ca.pem"}, {}, "give one with --api-tls-port"),
        ({"secrets_key": "a", "secrets_key_file": "b"}, {}, "exclude each other"),
        ({"workers": 2}, {}, "2 workers need a store"),
        ({"dp_tls_cert": "a.pem"}, {}, "go together"),
        ({"host": "0.0.0.0", "dp_auth": "none"}, {}, "--dp-auth none lets anybody"),
        ({"host": "10.0.0.1", "dp_tls": False}, {}, "--no-dp-tls lets anybody"),
    ],
)
def test_what_cannot_be_is_said_clearly(flags: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(flags, environ=environ)


def test_other_addresses_need_a_word_of_consent() -> None:
    assert load({"host": "0.0.0.0", "insecure": True}, environ={}).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1, 2]", "must hold a mapping"), ("a: [", "is not YAML"), ("no_such: 1", "unknown setting 'no_such'")],
)
def test_a_file_of_no_use_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "kumafast.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        load({}, config=file, environ={})
    with pytest.raises(SettingsError, match="cannot read"):
        load({}, config=tmp_path / "absent.yaml", environ={})


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        (
            "postgres://kuma:hush@db:5432/kuma?sslmode=verify-full",
            "postgres://kuma:***@db:5432/kuma?sslmode=verify-full",
        ),
        ("postgres://kuma:hu:@sh@one,two/kuma", "postgres://kuma:***@one,two/kuma"),
        ("postgresql://db/kuma?user=kuma&password=hush", "postgresql://db/kuma?user=kuma&password=***"),
        ("postgres://kuma@db/kuma", "postgres://kuma@db/kuma"),
        ("sqlite:/var/lib/kumafast.db", "sqlite:/var/lib/kumafast.db"),
        ("", ""),
    ],
)
def test_the_password_of_a_store_is_not_shown(store: str, shown: str) -> None:
    assert Settings(store=store).as_shown()["store"] == shown


def test_the_data_directory_is_the_one_given_else_the_stores_else_the_users(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/here/kumafast.db"
    assert Settings(store=store).data_path == tmp_path / "here"
    assert Settings(store=store, data_dir=str(tmp_path)).data_path == tmp_path
    assert Settings(store="memory").data_path.name == "kumafast"
    assert Settings(data_dir=str(tmp_path)).store_url == f"sqlite:{tmp_path}/kumafast.db"
