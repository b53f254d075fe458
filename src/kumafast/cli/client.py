"""Speak with the API of a control plane.

In: an address, resources. Out: answers as plain JSON values; what goes wrong is a `CommandError`. Never: output.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

import httpx

from kumafast import __version__
from kumafast.cli.failure import CommandError

REVISION_HEADER = "X-Kumafast-Revision"
Query: TypeAlias = Mapping[str, str | list[str]]
_TIMEOUT_S = 30.0
# A page of kumactl's own size; the server's limit is 1000.
_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Kind:
    """What the server says of one type of resource. `path` is the part of the URL, such as `dataplanes`."""

    name: str
    path: str
    is_global: bool
    is_read_only: bool
    is_policy: bool
    words: frozenset[str]


class ApiClient:
    """One connection to the API, kept for as long as a command runs."""

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        ca_file: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`token` says who asks, which the control plane's own machine need not; `ca_file` verifies an `https` API."""
        if urlsplit(address).scheme not in {"http", "https"} or not urlsplit(address).netloc:
            raise CommandError(f"{address!r} is not the address of an API; it has the form http://127.0.0.1:5681")
        self.address = address.rstrip("/")
        headers = {"User-Agent": f"kumafast/{__version__}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # Whom Python trusts by default is read from a file of 200 KB, which takes longer than most commands.
        is_verified = _trusting(ca_file) if ca_file else self.address.startswith("https")
        self._http = httpx.Client(
            base_url=self.address,
            headers=headers,
            timeout=_TIMEOUT_S,
            transport=transport,
            verify=is_verified,
        )
        self._kinds: list[Kind] | None = None

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, *, params: Query | None = None, timeout_s: float = _TIMEOUT_S) -> httpx.Response:
        """The answer to a GET; `CommandError` unless the status is 200."""
        return _checked(self._send("GET", path, params=params, timeout_s=timeout_s))

    def find(self, path: str) -> httpx.Response | None:
        """The answer to a GET, or None where there is nothing."""
        response = self._send("GET", path)
        return None if response.status_code == 404 else _checked(response)

    def put(self, path: str, document: Mapping[str, Any]) -> httpx.Response:
        """Write a resource; `CommandError` with every violation where the server refuses it."""
        return _checked(self._send("PUT", path, document=document))

    def post(self, path: str, document: Mapping[str, Any]) -> httpx.Response:
        """Ask for something to be made; `CommandError` where the server refuses it."""
        return _checked(self._send("POST", path, document=document))

    def delete(self, path: str) -> httpx.Response:
        """Delete a resource; `CommandError` where the server refuses or has none."""
        return _checked(self._send("DELETE", path))

    def items(self, path: str, params: Query | None = None) -> list[dict[str, Any]]:
        """All items of a list, from all its pages."""
        return list(self._pages(path, {**(params or {}), "size": str(_PAGE_SIZE)}))

    def kind(self, word: str) -> Kind:
        """The type that `dataplanes`, `dataplane`, `Dataplane` or `dp` means; `CommandError` if there is none."""
        wanted = _word(word)
        for kind in self.kinds():
            if wanted in kind.words:
                return kind
        known = ", ".join(sorted(kind.path for kind in self.kinds()))
        raise CommandError(f"there is no type {word!r}; the control plane knows: {known}")

    def kinds(self) -> list[Kind]:
        """Every type of resource that the server has."""
        if self._kinds is None:
            self._kinds = [_kind(entry) for entry in json_of(self.get("/_resources")).get("resources", [])]
        return self._kinds

    def _pages(self, path: str, params: Query) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        while True:
            page = json_of(self.get(path, params=params))
            yield from page.get("items") or []
            following: str | None = page.get("next")
            if not following or following in seen:
                return
            seen.add(following)
            # Only the offset counts: behind a proxy the server may think that it has another address than the user's.
            params = {**params, "offset": httpx.URL(following).params.get("offset", "")}

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Query | None = None,
        document: Mapping[str, Any] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, params=params, json=document, timeout=timeout_s)
        except httpx.TimeoutException as error:
            raise CommandError(f"the control plane at {self.address} did not answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise CommandError(
                    f"nobody vouches for the certificate of {self.address} ({error}); "
                    "name its authority, or the certificate itself, with --ca-file"
                ) from error
            raise CommandError(
                f"cannot reach the control plane at {self.address} ({error}); is it running? "
                "Name another with --api or KUMAFAST_API"
            ) from error


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CommandError(f"cannot use the authority {ca_file}: {error}") from error


def item_path(kind: Kind, *, mesh: str, name: str | None = None) -> str:
    """The path of a resource, or of the list of its type where no name is given."""
    prefix = "" if kind.is_global else f"/meshes/{quote(mesh, safe='')}"
    return f"{prefix}/{kind.path}" + (f"/{quote(name, safe='')}" if name is not None else "")


def mesh_path(mesh: str, *parts: str) -> str:
    """A path below a mesh."""
    return "/".join(("/meshes", quote(mesh, safe=""), *parts))


def json_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; `CommandError` where it is none."""
    try:
        value = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        value = None
    if not isinstance(value, dict):
        raise CommandError(f"{response.request.url} did not answer with a JSON object; is a control plane there?")
    return value


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        error = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        error = None
    request = f"{response.request.method} {response.request.url.path}"
    if not isinstance(error, dict):
        raise CommandError(f"{request}: status {response.status_code} {response.text.strip()[:200]}")
    title, detail = (
        str(error.get("title") or "").strip(),
        str(error.get("detail") or error.get("details") or "").strip(),
    )
    violations = [f"{entry.get('field')}: {entry.get('reason')}" for entry in error.get("invalid_parameters") or []]
    violations = violations or [f"{entry.get('field')}: {entry.get('message')}" for entry in error.get("causes") or []]
    text = " (".join(part for part in (title, detail) if part) + (")" if title and detail else "")
    raise CommandError(text or f"{request}: status {response.status_code}", violations)


def _kind(entry: Mapping[str, Any]) -> Kind:
    name, path = str(entry["name"]), str(entry["path"])
    words = {
        name,
        path,
        *(str(entry.get(key) or "") for key in ("shortName", "singularDisplayName", "pluralDisplayName")),
    }
    return Kind(
        name=name,
        path=path,
        is_global=entry.get("scope") == "Global",
        is_read_only=bool(entry.get("readOnly")),
        is_policy=bool(entry.get("policy")),
        words=frozenset(_word(word) for word in words) - {""},
    )


def _word(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
