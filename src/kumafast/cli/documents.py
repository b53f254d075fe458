"""Read what a user wrote: files, directories and standard input into documents.

In: paths, variables for `{{name}}`. Out: `Document`s in the order in which they stand. Never: what a document means.

Plain scalars are read as kumactl reads them (its YAML library is go-yaml 2): `yes`, `on` and their kin are booleans,
`0x10`, `0b1` and `010` are numbers, and dates and times stay text, `12:30:45` too. Keys are always text.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kumafast.cli.failure import CommandError
from kumafast.cli.scalars import add_resolvers

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Document:
    """One mapping of a source. `number` counts from 1 within it, empty documents included."""

    source: str
    number: int
    content: dict[str, Any]

    @property
    def place(self) -> str:
        """Where the document stands, for messages."""
        return f"{self.source}, document {self.number}"


def read_documents(paths: Sequence[str], *, variables: Mapping[str, str]) -> list[Document]:
    """Every document of the files, of `-` (standard input), and of directories with all below them, in order.

    Raises `CommandError` that lists every source that cannot be read, before anything can be done with the others.
    """
    documents: list[Document] = []
    problems: list[str] = []
    for path in paths:
        for source, text in _sources(path):
            try:
                documents += parse_documents(render(text, variables), source=source)
            except CommandError as error:
                problems.append(str(error))
    if problems:
        raise CommandError("nothing was applied, since not everything can be read:", problems)
    return documents


def render(text: str, variables: Mapping[str, str]) -> str:
    """The text with each `{{name}}` replaced by the variable of that name.

    Without variables the text stays as it is, so that `{{ … }}` of other tools gets through; `{{ .Name }}`, the form of
    Kuma's own hostname templates, always does. Raises `CommandError` for a placeholder without a variable.
    """
    if not variables:
        return text
    missing = sorted({name for name in _PLACEHOLDER.findall(text) if name not in variables})
    if missing:
        names = ", ".join(f"-v {name}=…" for name in missing)
        raise CommandError(f"no value for {{{{{missing[0]}}}}}; give {names}")
    return _PLACEHOLDER.sub(lambda match: variables[match[1]], text)


def parse_variables(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` pairs as a mapping; `CommandError` for one without `=`."""
    variables: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CommandError(f"a variable has the form key=value, not {pair!r}")
        variables[key] = value
    return variables


def parse_documents(text: str, *, source: str) -> list[Document]:
    """The documents of one text, JSON or YAML; `CommandError` with the place of what cannot be read."""
    documents: list[Document] = []
    number = 0
    try:
        for number, content in enumerate(_contents(text), start=1):
            if content is None:
                continue
            if not isinstance(content, dict):
                raise CommandError(f"{source}, document {number}: must be a mapping, not a {type(content).__name__}")
            documents.append(Document(source, number, content))
    except yaml.YAMLError as error:
        raise CommandError(f"{source}, document {number + 1}: {_explain(error)}{_hint(text)}") from error
    except RecursionError as error:
        raise CommandError(f"{source}, document {number + 1}: is nested too deeply") from error
    except ValueError as error:
        raise CommandError(f"{source}, document {number + 1}: {error}{_hint(text)}") from error
    return documents


def _sources(path: str) -> Iterator[tuple[str, str]]:
    if path == "-":
        yield "standard input", _decode(sys.stdin.buffer.read(), "standard input")
        return
    root = Path(path)
    files = [root]
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise CommandError(f"there is no .yaml, .yml or .json file in {path}")
    for file in files:
        try:
            yield str(file), _decode(file.read_bytes(), str(file))
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}") from error


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{source} is not UTF-8 text") from error


def _contents(text: str) -> Iterator[Any]:
    if text.lstrip().startswith("{"):
        try:
            yield json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
            return
        except json.JSONDecodeError:
            pass  # YAML's flow form begins like JSON.
    yield from yaml.load_all(text, Loader=_Loader)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows")


def _explain(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


def _hint(text: str) -> str:
    placeholder = _PLACEHOLDER.search(text)
    return f" (is a variable missing, -v {placeholder[1]}=…?)" if placeholder else ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that knows JSON's kinds of values only, with go-yaml's idea of plain scalars."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own form
    yaml_constructors: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = True) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key_node.value in seen:
                problem = f"the key {key_node.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        # What `<<` brings in comes first, so that the mapping's own keys win.
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(value, deep=True) for key, value in node.value}

    def construct_number(self, node: Any) -> int | float:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-")
        for prefix, radix in (("0x", 16), ("0b", 2), ("0o", 8)):
            if digits.startswith(prefix):
                return sign * int(digits[2:], radix)
        if re.fullmatch(r"0[0-7]+", digits):
            return sign * int(digits, 8)
        number = float(text)
        if not math.isfinite(number):
            raise yaml.constructor.ConstructorError(None, None, f"{text} is too big a number", node.start_mark)
        if digits.isdecimal():
            return sign * int(digits)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number

    def construct_boolean(self, node: Any) -> bool:
        return str(self.construct_scalar(node)).lower() in {"y", "yes", "true", "on"}

    def refuse(self, node: Any) -> Any:
        raise yaml.constructor.ConstructorError(None, None, f"cannot read a value of kind {node.tag}", node.start_mark)


def _prepare(loader: type[_Loader]) -> None:
    add_resolvers(loader)
    tag = "tag:yaml.org,2002:"
    for name, construct in (
        ("map", loader.construct_mapping),
        ("seq", lambda self, node: self.construct_sequence(node, deep=True)),
        ("str", loader.construct_scalar),
        ("int", loader.construct_number),
        ("float", loader.construct_number),
        ("bool", loader.construct_boolean),
        ("null", lambda self, node: None),
        ("timestamp", loader.construct_scalar),
    ):
        loader.add_constructor(tag + name, construct)
    loader.add_constructor(None, loader.refuse)


_prepare(_Loader)
