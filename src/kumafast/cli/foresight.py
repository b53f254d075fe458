"""What changes would do, in words: resources, then groups of proxies with what would be different in their Envoys.

In: the server's answer. Out: lines for people, coloured where their reader is a terminal. Never: requests.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import typer

Json: TypeAlias = Any

_NAMES_SHOWN = 3
_EDITS_SHOWN = 10
_DIFFERENCES_SHOWN = 6
_LINES_SHOWN = 6
_WIDTH = 80
_PAST = {"created": "be created", "updated": "be updated", "deleted": "be deleted", "unchanged": "not change"}
_MARKS = {"added": ("+ ", typer.colors.GREEN), "removed": ("- ", typer.colors.RED), "changed": ("", None)}


@dataclass(frozen=True, slots=True)
class Foresight:
    """An answer about changes that were not made."""

    answer: Mapping[str, Any]

    @property
    def changes_something(self) -> bool:
        """Whether any resource would be another."""
        return any(entry.get("outcome") != "unchanged" for entry in self.answer.get("resources") or [])

    def text(self, *, is_whole: bool = False) -> str:
        """All of it in words; `is_whole` with every name and all content."""
        return "\n".join(_Words(is_whole=is_whole).lines(self.answer))


class _Words:
    def __init__(self, *, is_whole: bool) -> None:
        self._is_whole = is_whole
        self._width = max(_WIDTH // 2, shutil.get_terminal_size((_WIDTH, 24)).columns)

    def lines(self, answer: Mapping[str, Any]) -> Iterator[str]:
        resources = answer.get("resources") or []
        for entry in resources:
            if not entry.get("isAlong"):
                yield f"{entry['type']} {entry['name']} would {_PAST[entry['outcome']]}"
        along = [entry for entry in resources if entry.get("isAlong")]
        for outcome in dict.fromkeys(entry["outcome"] for entry in along):
            names = [f"{entry['type']} {entry['name']}" for entry in along if entry["outcome"] == outcome]
            yield from self._wrapped(f"{self._some(names, of='resources')} would {_PAST[outcome]} along")
        yield self._summary(answer)
        for group in answer.get("groups") or []:
            yield ""
            yield from self._group(group)
        for failed in answer.get("failed") or []:
            yield ""
            yield from self._failed(failed)
        yield from self._left_out(answer.get("leftOut") or {})

    def _failed(self, failed: Mapping[str, Any]) -> Iterator[str]:
        names, count = [entry["name"] for entry in failed.get("names") or []], int(failed.get("proxies") or 0)
        head = "1 proxy would keep what it has" if count == 1 else f"{count:,} proxies would keep what they have"
        first, *rest = self._wrapped(f"{head}: {self._listed(names)}")
        yield typer.style(head, fg=typer.colors.RED, bold=True) + first.removeprefix(head)
        yield from rest
        policies = ", ".join(f"{key['type']} {key['name']}" for key in failed.get("policies") or [])
        resources = failed.get("resources") or []
        where = self._some(resources, of=str(failed.get("typeUrl") or "").rpartition(".")[2]) if resources else ""
        yield f"  {policies} cannot be applied{' to ' if where else ''}{where}"
        yield f"    {failed.get('message')}"

    def _summary(self, answer: Mapping[str, Any]) -> str:
        proxies = answer.get("proxies") or {}
        affected, total = int(proxies.get("affected") or 0), int(proxies.get("total") or 0)
        if not affected:
            return "no proxy would get anything else"
        of = f"{affected:,} of {total:,} proxies" if total != 1 else "1 of 1 proxy"
        return f"{of} would get something else ({int(proxies.get('connected') or 0):,} connected)"

    def _group(self, group: Mapping[str, Any]) -> Iterator[str]:
        names = group.get("names") or []
        meshes = {entry["mesh"] for entry in names}
        shown = [entry["name"] if len(meshes) == 1 else f"{entry['mesh']}/{entry['name']}" for entry in names]
        count = len(shown)
        head = f"{count:,} {'proxy' if count == 1 else 'proxies'}"
        first, *rest = self._wrapped(f"{head}: {self._listed(shown)}")
        yield typer.style(head, bold=True) + first.removeprefix(head)
        yield from rest
        edits = group.get("edits") or []
        for edit in self._first(edits, _EDITS_SHOWN):
            yield from self._edit(edit)
        yield from self._more(len(edits), _EDITS_SHOWN, "edits", indent=2)

    def _edit(self, edit: Mapping[str, Any]) -> Iterator[str]:
        mark, colour = _MARKS[edit["kind"]]
        kind = str(edit["typeUrl"]).rpartition(".")[2]
        yield self._painted(f"  {mark}{self._some(edit.get('resources') or [], of=kind)}", colour)
        if kind == "Secret":
            yield "    (its content is not shown)"
            return
        differences = edit.get("differences") or []
        for difference in self._first(differences, _DIFFERENCES_SHOWN):
            yield from self._difference(difference)
        yield from self._more(len(differences), _DIFFERENCES_SHOWN, "differences", indent=4)
        if self._is_whole and edit.get("content") is not None:
            yield from (self._painted(f"    {mark}{line}", colour) for line in _json_lines(edit["content"]))

    def _difference(self, difference: Mapping[str, Any]) -> Iterator[str]:
        path, before, after = str(difference["path"]), difference.get("before"), difference.get("after")
        if before is not None and after is not None and not _is_long(before) and not _is_long(after):
            was, now = _value(before), _value(after)
            room = self._width - 4 - len(f": {was} → {now}")
            arrow = f"{self._painted(was, typer.colors.RED)} → {self._painted(now, typer.colors.GREEN)}"
            yield f"    {self._path(path, room)}: {arrow}"
            return
        for mark, colour, value in (("-", typer.colors.RED, before), ("+", typer.colors.GREEN, after)):
            if value is None:
                continue
            if "lbEndpoints[" in path and not self._is_whole:
                # Its address says it.
                yield self._painted(f"    {mark} {self._path(path, self._width - 6)}", colour)
                continue
            if not _is_long(value):
                text = _value(value)
                yield self._painted(f"    {mark} {self._path(path, self._width - 8 - len(text))}: {text}", colour)
                continue
            yield self._painted(f"    {mark} {self._path(path, self._width - 7)}:", colour)
            lines = _json_lines(value)
            for line in self._first(lines, _LINES_SHOWN):
                yield self._painted(self._cut(f"    {mark}   {line}"), colour)
            yield from self._more(len(lines), _LINES_SHOWN, "lines", indent=8)

    def _path(self, path: str, room: int) -> str:
        """A path as far as there is room; its end says most."""
        if self._is_whole or not path:
            return path or "all of it"
        parts = [_short(part) for part in _parts(path)]
        text = ".".join(parts)
        while len(text) > room and len(parts) > 2:
            del parts[0]
            text = "….".join(("", ".".join(parts))).lstrip(".")
        return text

    def _cut(self, line: str) -> str:
        return line if self._is_whole or len(line) <= self._width else f"{line[: self._width - 1]}…"

    def _listed(self, names: Sequence[str]) -> str:
        if self._is_whole or len(names) <= _NAMES_SHOWN + 1:
            return ", ".join(names)
        return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN:,} more"

    def _some(self, names: Sequence[str], *, of: str) -> str:
        if len(names) == 1:
            return names[0] if of == "resources" else f"{of} {names[0]}"
        return f"{len(names):,} {of if of.endswith('s') else of + 's'}: {self._listed(names)}"

    def _first(self, items: Sequence[Any], count: int) -> Sequence[Any]:
        return items if self._is_whole or len(items) <= count + 1 else items[:count]

    def _more(self, total: int, count: int, what: str, *, indent: int) -> Iterator[str]:
        if not self._is_whole and total > count + 1:
            yield f"{' ' * indent}… {total - count:,} more {what}; --verbose shows them"

    def _left_out(self, left_out: Mapping[str, Any]) -> Iterator[str]:
        if left_out.get("proxies"):
            yield ""
            yield from self._wrapped(
                f"{int(left_out['proxies']):,} more proxies may get something else: there are too many kinds of "
                "them to look at each"
            )
        if left_out.get("edits"):
            yield f"{int(left_out['edits']):,} more edits are not shown"

    def _wrapped(self, text: str) -> list[str]:
        return textwrap.wrap(text, self._width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)

    @staticmethod
    def _painted(text: str, colour: str | None) -> str:
        return text if colour is None else typer.style(text, fg=colour)


def _parts(path: str) -> list[str]:
    """The fields of a path; names in brackets may have dots."""
    parts, depth = [""], 0
    for letter in path:
        depth += (letter == "[") - (letter == "]")
        if letter == "." and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _short(part: str) -> str:
    """A field with the last word of the name in its brackets: Envoy's extensions have long ones."""
    field, bracket, name = part.partition("[")
    if not bracket or not name.startswith("envoy."):
        return part
    return f"{field}[{name.rpartition('.')[2]}"


def _is_long(value: Json) -> bool:
    return isinstance(value, dict | list) and len(json.dumps(value)) > _WIDTH // 2


def _value(value: Json) -> str:
    if isinstance(value, str) and value and not any(letter.isspace() for letter in value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _json_lines(value: Json) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()
