"""`kumafast inspect`: what the proxies do, what they are configured to do, and why.

In: overviews, explanations and configurations of the API. Out: kumactl's table, the status of one, trees of policies.
Never: a reason that the control plane did not give.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast.cli.failure import CommandError, Commands
from kumafast.cli.get import OutputOption
from kumafast.cli.output import Format, age, formatted, table, tag_sets_of, tags_text
from kumafast.cli.refusals import refusals_by, refusals_of
from kumafast.cli.target import ApiOption, MeshOption, connect

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient


class _Inspections(Commands):
    """Beside the commands that there are, each kind of policy is one: the control plane knows which."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or typer.main.get_command(_policies)


app = typer.Typer(
    cls=_Inspections,
    no_args_is_help=True,
    subcommand_metavar="dataplanes | dataplane NAME | POLICY NAME",
    help="Look at what the proxies do, or at what becomes of a policy: `kumafast inspect timeout slow-web`.",
)
_policies = typer.Typer(add_completion=False, rich_markup_mode=None)

_TYPES = ("cds", "eds", "lds", "rds")
_HEADERS = (
    *("MESH", "NAME", "TAGS", "STATUS", "LAST CONNECTED AGO", "LAST UPDATED AGO"),
    *("TOTAL UPDATES", "TOTAL ERRORS"),
)
_COUNT_HEADERS = ("TYPE", "SENT", "ACKNOWLEDGED", "REJECTED")
_DETAIL_HEADERS = ("BYTES", "VERSION", "STATE")
# Enough of a digest to tell one from another.
_VERSION_SHOWN = 12
_WIDE_HEADERS = ("KUMA-DP VERSION", "ENVOY VERSION")
_RESOURCE_HEADERS = ("TYPE", "NAME")
_GATEWAY_HEADERS = ("MESH", "DATAPLANE")
_OF_GATEWAYS = ("MeshGateway", "MeshGatewayRoute")
_SHOWN_MAX = 100


class Aspect(StrEnum):
    """What of a dataplane can be looked at."""

    STATUS = "status"
    POLICIES = "policies"
    CONFIG = "config"
    RESOURCES = "resources"


@app.command("dataplanes")
def inspect_dataplanes(
    context: typer.Context,
    mesh: MeshOption = "default",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only those with this tag. May be repeated.")
    ] = None,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Only gateways, delegated ones and those of the mesh itself.")
    ] = False,
    output: OutputOption = Format.TABLE,
    wide: Annotated[bool, typer.Option("--wide", help="Also the versions of each proxy.")] = False,
    api: ApiOption = None,
) -> None:
    """Show the dataplanes of a mesh with their status."""
    from urllib.parse import quote

    params = {"tag": [_tag_query(text) for text in tag or []], **({"gateway": ["true"]} if gateway else {})}
    with connect(context, api) as client:
        items = client.items(f"/meshes/{quote(mesh, safe='')}/dataplanes/_overview", params)
    if output is Format.TABLE:
        typer.echo(overview_table(items, is_wide=wide))
    else:
        typer.echo(formatted({"total": len(items), "items": items, "next": None}, output))


@app.command("dataplane")
def inspect_dataplane(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    mesh: MeshOption = "default",
    aspect: Annotated[
        Aspect, typer.Option("--type", envvar="KUMAFAST_INSPECT_DATAPLANE_TYPE", help="What to look at.")
    ] = Aspect.STATUS,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="With --type config: what the mesh's shadow policies would change.")
    ] = False,
    output: OutputOption = Format.TABLE,
    api: ApiOption = None,
) -> None:
    """Show one dataplane: status, policies, configuration."""
    from urllib.parse import quote

    if shadow and aspect is not Aspect.CONFIG:
        raise CommandError("--shadow shows another configuration: it goes with --type config")
    path = f"/meshes/{quote(mesh, safe='')}/dataplanes/{quote(name, safe='')}"
    with connect(context, api) as client:
        if aspect is Aspect.STATUS:
            item = _found(client, f"{path}/_overview", name, mesh)
            refused = refusals_by(client, mesh=mesh, name=name) if output is Format.TABLE else []
            text = "\n".join((status_text(item), *refused))
        elif aspect is Aspect.POLICIES:
            item = _found(client, f"{path}/_explanation", name, mesh)
            text = _explained(item) if output is Format.TABLE else ""
        else:
            item = _config(client, path, name, mesh, is_shadow=shadow)
            text = config_text(item, aspect, is_shadow=shadow)
    typer.echo(text if output is Format.TABLE else formatted(item, output))


@_policies.command()
def inspect_policy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    mesh: MeshOption = "default",
    output: OutputOption = Format.TABLE,
    api: ApiOption = None,
) -> None:
    """Show one policy: for whom it is, where it applies, what it loses to and why; of a MeshGateway, its dataplanes."""
    from kumafast.cli.client import item_path, json_of

    with connect(context, api) as client:
        kind = client.kind(context.info_name or "")
        if kind.name in _OF_GATEWAYS:
            typer.echo(_gateways(client, item_path(kind, mesh=mesh, name=name), f"{kind.name} {name}", mesh, output))
            return
        if not kind.is_policy:
            raise CommandError(
                f"{kind.name} is no policy; `kumafast inspect dataplane NAME` shows those of a dataplane"
            )
        path = item_path(kind, mesh=mesh, name=name)
        if client.find(path) is None:
            raise CommandError(f"there is no {kind.name} {name} in mesh {mesh}")
        # A person reads no more than a page; programs get all.
        document = json_of(client.get(f"{path}/_explanation", params={"size": str(_SHOWN_MAX)}))
        refused: list[str] = []
        if output is Format.TABLE:
            refused = refusals_of(client, mesh=mesh, type_name=kind.name, name=name)
        else:
            items = client.items(f"{path}/_explanation")
            document = {"resource": document["resource"], "total": len(items), "items": items, "next": None}
    typer.echo("\n".join((_explained(document), *refused)) if output is Format.TABLE else formatted(document, output))


def _gateways(client: ApiClient, path: str, what: str, mesh: str, output: Format) -> str:
    """The built-in gateways that a MeshGateway, or a route for one, is for."""
    from kumafast.cli.client import json_of

    found = client.find(f"{path}/dataplanes")
    if found is None:
        raise CommandError(f"there is no {what} in mesh {mesh}")
    document = json_of(found)
    rows = [[str(item["dataplane"]["mesh"]), str(item["dataplane"]["name"])] for item in document["items"]]
    return table(_GATEWAY_HEADERS, rows) if output is Format.TABLE else formatted(document, output)


def _found(client: ApiClient, path: str, name: str, mesh: str) -> dict[str, Any]:
    from kumafast.cli.client import json_of

    found = client.find(path)
    if found is None:
        raise CommandError(f"there is no Dataplane {name} in mesh {mesh}")
    return json_of(found)


def _config(client: ApiClient, path: str, name: str, mesh: str, *, is_shadow: bool) -> dict[str, Any]:
    from kumafast.cli.client import json_of

    found = client.find(f"{path}/_config?shadow=true&include=diff" if is_shadow else f"{path}/_config")
    if found is None:
        _found(client, path, name, mesh)
        raise CommandError(f"{name} is not connected, so it has no configuration; `inspect dataplanes` shows who is")
    return json_of(found)


def _explained(document: Mapping[str, Any]) -> str:
    from kumafast.cli.explanation import policy_tree, printed, proxy_tree

    tree = proxy_tree(document) if "subjects" in document else policy_tree(document)
    return printed(tree, is_terminal=sys.stdout.isatty())


def config_text(document: Mapping[str, Any], aspect: Aspect, *, is_shadow: bool) -> str:
    """An Envoy's configuration: what shadow policies would change of it, the names in it, or all."""
    if is_shadow:
        return shadow_text(document["diff"])
    if aspect is Aspect.CONFIG:
        return formatted(document, Format.JSON)
    rows = [[url.rpartition(".")[2], name] for url, resources in document["xds"].items() for name in resources]
    return table(_RESOURCE_HEADERS, rows)


def shadow_text(patch: Sequence[Mapping[str, Any]]) -> str:
    """A JSON patch as lines that begin with `-` for what goes and `+` for what comes."""
    if not patch:
        return "the shadow policies would change nothing"
    signs = {"remove": "-", "add": "+"}
    lines = []
    for step in patch:
        if step["op"] in signs:
            # The names of types are long, and the last part of one says it all.
            _, url, *path = str(step["path"]).split("/")
            where = "/".join((url.rpartition(".")[2], *path)).replace("~1", "/").replace("~0", "~")
            lines.append(f"{signs[step['op']]} {where}: {json.dumps(step.get('value'), ensure_ascii=False)}")
    return "\n".join(lines)


def overview_table(items: Sequence[Mapping[str, Any]], *, is_wide: bool = False) -> str:
    """kumactl's table of dataplanes."""
    rows = []
    for item in items:
        last = _last_subscription(item)
        version = last.get("version") or {}
        row = [
            str(item.get("mesh", "")),
            str(item.get("name", "")),
            tags_text(tag_sets_of(item.get("dataplane") or {})),
            status_of(item),
            age(last.get("connectTime")),
            age((last.get("status") or {}).get("lastUpdateTime")),
            str(total_of(item, "responsesSent")),
            str(total_of(item, "responsesRejected")),
        ]
        if is_wide:
            row += [str((version.get(part) or {}).get("version") or "unknown") for part in ("kumaDp", "envoy")]
        rows.append(row)
    return table([*_HEADERS, *(_WIDE_HEADERS if is_wide else ())], rows)


def status_of(overview: Mapping[str, Any]) -> str:
    """Online, Offline or Partially degraded, by Kuma's rule: a stream is open, and the inbounds are ready."""
    if not any(not entry.get("disconnectTime") for entry in _subscriptions(overview)):
        return "Offline"
    inbounds = ((overview.get("dataplane") or {}).get("networking") or {}).get("inbound") or []
    ready = [
        inbound.get("state", "Ready") == "Ready" and (inbound.get("health") or {}).get("ready", True)
        for inbound in inbounds
        if inbound.get("state") != "Ignored"
    ]
    if not ready or all(ready):
        return "Online"
    return "Partially degraded" if any(ready) else "Offline"


def total_of(overview: Mapping[str, Any], counter: str) -> int:
    """The sum of a counter over all subscriptions that are kept."""
    return sum(
        int(((entry.get("status") or {}).get("total") or {}).get(counter) or 0) for entry in _subscriptions(overview)
    )


def status_text(overview: Mapping[str, Any]) -> str:
    """One dataplane's status: the whole, then its subscriptions, newest first."""
    lines = [
        f"name:    {overview.get('name', '')}",
        f"mesh:    {overview.get('mesh', '')}",
        f"tags:    {tags_text(tag_sets_of(overview.get('dataplane') or {}))}",
        f"status:  {status_of(overview)}",
        f"updates: {total_of(overview, 'responsesSent')}",
        f"errors:  {total_of(overview, 'responsesRejected')}",
    ]
    for entry in reversed(_subscriptions(overview)):
        lines += ["", *_subscription_lines(entry)]
    return "\n".join(lines)


def _subscription_lines(entry: Mapping[str, Any]) -> list[str]:
    status = entry.get("status") or {}
    ended = entry.get("disconnectTime")
    versions = entry.get("version") or {}
    envoy = (versions.get("envoy") or {}).get("version")
    lines = [
        f"subscription {entry.get('id', '')} at {entry.get('controlPlaneInstanceId', '')}",
        f"  connected {age(entry.get('connectTime'))} ago, " + (f"ended {age(ended)} ago" if ended else "open")
        + (f", Envoy {envoy}" if envoy else ""),
        f"  last update {_ago(status.get('lastUpdateTime'))}",
    ]  # fmt: skip
    details = status.get("types") or []
    rows = _detailed_rows(status, details) if details else _plain_rows(status)
    headers = (*_COUNT_HEADERS, *_DETAIL_HEADERS) if details else _COUNT_HEADERS
    lines += [f"  {line}" for line in table(headers, rows).splitlines()]
    refused = [_refusal(entry) for entry in details if entry.get("rejectedVersion")]
    error = _last_error(status)
    return [*lines, *(refused or ([f"  last error: {error}"] if error else []))]


def _plain_rows(status: Mapping[str, Any]) -> list[list[str]]:
    """The four types that Kuma counts, for an insight that has no more."""
    return [[name, *_counts(status.get(name) or {})] for name in (*_TYPES, "total")]


def _detailed_rows(status: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [
        [
            _type_name(entry),
            *_counts(entry),
            str(entry.get("bytesSent") or 0),
            str(entry.get("sentVersion") or "")[:_VERSION_SHOWN],
            _state(entry),
        ]
        for entry in details
    ]
    size = sum(int(entry.get("bytesSent") or 0) for entry in details)
    return [*rows, ["total", *_counts(status.get("total") or {}), str(size), "", ""]]


def _counts(responses: Mapping[str, Any]) -> list[str]:
    return [str(responses.get(f"responses{what}") or 0) for what in ("Sent", "Acknowledged", "Rejected")]


def _type_name(entry: Mapping[str, Any]) -> str:
    url = str(entry.get("typeUrl") or "")
    return url.rpartition(".")[2] or url


def _state(entry: Mapping[str, Any]) -> str:
    """What the proxy made of the newest version that it was sent."""
    sent, taken, refused = (entry.get(f"{what}Version") or "" for what in ("sent", "acknowledged", "rejected"))
    if sent == taken:
        return "acknowledged"
    if sent != refused:
        return "sent, not yet answered"
    return f"rejected, runs {taken[:_VERSION_SHOWN]}" if taken else "rejected, runs none"


def _refusal(entry: Mapping[str, Any]) -> str:
    version = str(entry["rejectedVersion"])[:_VERSION_SHOWN]
    return f"  {_type_name(entry)} {version} was rejected {_ago(entry.get('rejectedTime'))}: {entry.get('error', '')}"


def _last_error(status: Mapping[str, Any]) -> str:
    found = status.get("lastError") or (status.get("total") or {}).get("lastError") or ""
    if isinstance(found, Mapping):
        return ": ".join(str(found[key]) for key in ("typeUrl", "type", "message") if found.get(key))
    return str(found)


def _ago(moment: str | None) -> str:
    text = age(moment)
    return text if text == "never" else f"{text} ago"


def _subscriptions(overview: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((overview.get("dataplaneInsight") or {}).get("subscriptions") or [])


def _last_subscription(overview: Mapping[str, Any]) -> Mapping[str, Any]:
    subscriptions = _subscriptions(overview)
    return subscriptions[-1] if subscriptions else {}


def _tag_query(tag: str) -> str:
    # The API writes a tag as key:value; kumactl's users write key=value.
    key, separator, value = tag.partition("=")
    if not separator:
        key, separator, value = tag.partition(":")
    if not separator or not key:
        raise CommandError(f"a tag has the form key=value, not {tag!r}")
    return f"{key}:{value}"
