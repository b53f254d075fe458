"""The dp-server's own certificate: made once, trusted by itself, private."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from kumafast.errors import SettingsError
from kumafast.identity import ensure_server_certificate


def test_a_client_that_trusts_the_certificate_connects_by_name_and_address(tmp_path: Path) -> None:
    files = ensure_server_certificate(tmp_path, host="127.0.0.2")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    for name in ("localhost", "127.0.0.1", "127.0.0.2"):
        ours, theirs = socket.socketpair()

        def accept(raw: socket.socket = theirs) -> None:
            with server.wrap_socket(raw, server_side=True) as tls:
                tls.sendall(b"hello")

        thread = threading.Thread(target=accept)
        thread.start()
        client = ssl.create_default_context(cafile=str(files.certificate))
        with client.wrap_socket(ours, server_hostname=name) as tls:
            assert tls.recv(5) == b"hello"
        thread.join()


def test_the_files_are_made_once_and_the_key_is_private(tmp_path: Path) -> None:
    first = ensure_server_certificate(tmp_path / "data", host="127.0.0.1")
    content = first.certificate.read_bytes()
    second = ensure_server_certificate(tmp_path / "data", host="127.0.0.1")
    assert (first.is_new, second.is_new) == (True, False)
    assert second.certificate.read_bytes() == content
    assert first.key.stat().st_mode & 0o077 == 0


def test_an_unreadable_certificate_is_named_and_not_replaced(tmp_path: Path) -> None:
    files = ensure_server_certificate(tmp_path, host="127.0.0.1")
    files.certificate.write_text("not a certificate")
    with pytest.raises(SettingsError, match=r"dp-server\.crt"):
        ensure_server_certificate(tmp_path, host="127.0.0.1")
    assert files.certificate.read_text() == "not a certificate"
