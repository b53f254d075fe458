"""Put explanations into words: which policy holds for what, what it says, and what each other lost to and why.

In: the API's documents `…/_explanation`. Out: trees for a terminal of any width. Never: requests; a colour that says
what the words do not.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

Json: TypeAlias = Mapping[str, Any]

_WIDTH_MIN, _WIDTH_MAX = 40, 120
_NAMES_SHOWN = 3
_HOLDS = ("applies", "applies in part")
_STYLES = {"applies": "green", "applies in part": "yellow", "outweighed": "red", "silenced": "red"}


def proxy_tree(document: Json) -> RenderableType:
    """One proxy: for each inbound and service each kind of policy, what holds, and who lost."""
    resource = document["resource"]
    root = Tree(Text.assemble((resource["name"], "bold"), f" in mesh {resource['mesh']}"))
    for subject in document["subjects"]:
        branch = root.add(_subject(subject))
        if not subject["policies"]:
            branch.add(Text("no policy says anything of it", style="dim"))
        for policy in subject["policies"]:
            _add_kind(branch, policy)
    if not document["subjects"]:
        root.add(Text("it has neither inbounds nor outbounds", style="dim"))
    return root


def policy_tree(document: Json) -> RenderableType:
    """One policy: those for which it says something, alike ones together, and what becomes of it there."""
    resource, items = document["resource"], document["items"]
    about = [item for item in items if item["subjects"]]
    rest = [str(item["name"]) for item in items if not item["subjects"]]
    root = Tree(Text.assemble(f"{resource['type']} ", (resource["name"], "bold"), f" in mesh {resource['mesh']}"))
    if not items:
        root.add(Text("it selects no dataplane", style="dim"))
    elif resource["labels"].get("kuma.io/effect") == "shadow":
        root.add(Text(f"a shadow, not in force; it would be for {_dataplanes(rest, document['total'])}"))
        root.add(Text("what it would change: kumafast inspect dataplane NAME --type config --shadow"))
        return root
    for names, subjects in _alike(about):
        branch = root.add(Text(_dataplanes(names), style="bold"))
        for subject in subjects:
            node = branch.add(_subject(subject, verdict=subject["verdict"]))
            _add_policy(node, subject, subject["conf"])
    if rest:
        root.add(Text(f"{_dataplanes(rest)}: no inbound or outbound that it is about", style="dim"))
    if document["total"] > len(items):
        root.add(Text(f"and {document['total'] - len(items)} dataplanes more; with -o json all are there", style="dim"))
    return root


def printed(tree: RenderableType, *, is_terminal: bool) -> str:
    """The tree as text, as wide as the terminal; in colours where that is one."""
    width = max(_WIDTH_MIN, min(_WIDTH_MAX, shutil.get_terminal_size((_WIDTH_MAX, 24)).columns))
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=is_terminal,
        color_system="auto",
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(tree)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _add_kind(branch: Tree, policy: Json) -> None:
    candidates = policy["candidates"]
    if policy.get("silencedBy"):
        node = branch.add(_titled(policy["type"], "silenced", policy["reason"]))
        node.add(Text(f"not in force: {_listed(candidate['name'] for candidate in candidates)}"))
        return
    node = branch.add(Text(policy["type"], style="bold"))
    table, unplaced = _fields(policy["conf"], candidates)
    if table is not None:
        node.add(table)
    if unplaced:
        node.add(_as_yaml(policy["conf"]))
    if policy["conf"] == {}:
        node.add(Text(f"{_listed(_holding(candidates))}: it sets nothing", style="dim"))
    for candidate in candidates:
        if unplaced and candidate["verdict"] in _HOLDS:
            node.add(_titled(candidate["name"], candidate["verdict"]))
        elif candidate["verdict"] != "applies":
            _add_losses(node.add(_titled(candidate["name"], candidate["verdict"])), candidate)


def _holding(candidates: Iterable[Json]) -> list[str]:
    return [candidate["name"] for candidate in candidates if candidate["verdict"] in _HOLDS]


def _add_policy(node: Tree, candidate: Json, conf: Json | None) -> None:
    if candidate.get("silencedBy"):
        by = candidate["silencedBy"]
        node.add(Text(f"{by['type']} {by['name']} is heard instead ({candidate['reason']})"))
    table, unplaced = _fields(conf, [candidate], is_named=False)
    if table is not None:
        node.add(table)
    if unplaced and candidate["verdict"] in _HOLDS:
        node.add(_as_yaml(conf))
    _add_losses(node, candidate)


def _add_losses(node: Tree, candidate: Json) -> None:
    for loss in candidate["losses"]:
        what = f"{_listed(loss['fields'])}: " if candidate["verdict"] == "applies in part" and loss["fields"] else ""
        node.add(Text.assemble(what, "lost to ", (loss["to"], "bold"), f" ({loss['reason']})"))


def _fields(
    conf: Json | None, candidates: Sequence[Json], *, is_named: bool = True
) -> tuple[RenderableType | None, bool]:
    """A line for each field that holds: its value, and whose it is; and whether some are not of a merged conf."""
    table = Table.grid(padding=(0, 3))
    unplaced = False
    for candidate in candidates:
        for field in candidate["fields"]:
            found, value = _at(conf, field)
            unplaced |= not found
            if found:
                table.add_row(field, _value(value), *([Text(candidate["name"], style="cyan")] if is_named else []))
    return (table if table.row_count else None), unplaced


def _at(conf: Json | None, field: str) -> tuple[bool, Any]:
    """What stands at a dotted path, whose names may have dots themselves."""
    if conf is None:
        return False, None
    if field in conf:
        return True, conf[field]
    for name, inner in conf.items():
        if field.startswith(f"{name}.") and isinstance(inner, Mapping):
            return _at(inner, field[len(name) + 1 :])
    return False, None


def _value(value: Any) -> Text:
    if isinstance(value, list | Mapping):
        # Elements in lines of their own, each as short as can be.
        plain = yaml.safe_dump(value, default_flow_style=None, sort_keys=False, allow_unicode=True, width=_WIDTH_MAX)
        return Text(plain.rstrip("\n"), overflow="fold")
    return Text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), overflow="fold")


def _as_yaml(conf: Json | None) -> RenderableType:
    text = yaml.safe_dump(conf or {}, sort_keys=False, allow_unicode=True, width=_WIDTH_MAX).rstrip("\n")
    return Group(*(Text(line, overflow="fold") for line in text.splitlines()))


def _subject(subject: Json, *, verdict: str = "") -> Text:
    name = subject["name"]
    service = f", service {subject['service']}" if subject["subject"] == "inbound" and subject["service"] else ""
    where = f" ({', '.join(subject['addresses'])}{service})" if subject["addresses"] else ""
    text = Text.assemble(f"{subject['subject']} ", (name, "bold"), where)
    return text.append(f": {verdict}", style=_STYLES.get(verdict, "")) if verdict else text


def _titled(name: str, verdict: str, reason: str = "") -> Text:
    text = Text.assemble((name, "bold"), ": ", (verdict, _STYLES.get(verdict, "")))
    return text.append(f" ({reason})") if reason else text


def _alike(items: Iterable[Json]) -> list[tuple[list[str], Sequence[Json]]]:
    """Dataplanes by what becomes of the policy for them; where they listen does not count."""
    groups: dict[str, tuple[list[str], Sequence[Json]]] = {}
    for item in items:
        places = [{**subject, "addresses": []} for subject in item["subjects"]]
        key = json.dumps(places, sort_keys=True)
        names, _ = groups.setdefault(key, ([], item["subjects"]))
        names.append(str(item["name"]))
        if len(names) == 2:
            groups[key] = (names, places)
    return list(groups.values())


def _dataplanes(names: Sequence[str], total: int = 0) -> str:
    total = total or len(names)
    if total == 1:
        return names[0]
    more = f" and {total - _NAMES_SHOWN} more" if total > _NAMES_SHOWN else ""
    return f"{total} dataplanes: {_listed(names[:_NAMES_SHOWN])}{more}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
