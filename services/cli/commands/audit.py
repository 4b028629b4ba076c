"""`tidal audit`: shows the audit log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from services.cli.connection import Token, Url, connect
from services.cli.output import err, format_time, out, print_json, table


def command(
    actor: Annotated[str | None, typer.Option("--actor", help="Show only changes by the token with this name.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Show only this action, such as job.submit, or only job.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Show only changes of the object with this id.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Maximum number of changes to show.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show who changed what, newest change first. Needs the administrator's token or the scope admin."""
    with connect(url, token) as client:
        found = client.audit(actor=actor, action=action, target=target, limit=limit)
    if as_json:
        print_json([entry.model_dump(mode="json", by_alias=True) for entry in found])
        return
    if not found:
        err.print("There are no such changes.")
        return
    rows = table("time", "who", "from", "action", "target", "change")
    for entry in found:
        change = _change(entry.before, entry.after)
        rows.add_row(format_time(entry.at), entry.actor, entry.address or "", entry.action, entry.target, change)
    out.print(rows)


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """Describe a change in one line, such as `name "a" → "b"`; values that stayed the same are left out."""
    before, after = before or {}, after or {}
    parts = []
    for name in dict.fromkeys([*before, *after]):
        old, new = (
            json.dumps(values[name], ensure_ascii=False) if name in values else "" for values in (before, after)
        )
        if old != new:
            parts.append(f"{name} {old} → {new}" if old and new else f"{name} {old or new}")
    return ", ".join(parts)
