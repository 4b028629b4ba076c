"""`tidal tokens …`: creates, lists and revokes named tokens."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from common.errors import InvalidInputError, NotFoundError
from services.cli.connection import Token, Url, connect
from services.cli.output import age, err, format_time, out, print_json, table
from tidal_client import Client
from tidal_client.vocabulary import TOKEN_ID, TokenScope
from tidal_client.wire.access_token import AccessTokenReply

app = typer.Typer(help="Manage the tokens with which others use this instance.", no_args_is_help=True)

UNITS = {"h": "hours", "d": "days", "w": "weeks"}
MOST_DAYS = 36_500
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the token, which events of jobs show.")],
    scopes: Annotated[
        list[TokenScope],
        typer.Option(
            "--scope",
            "-s",
            help="What the token allows: read, generate, submit (includes read) or admin (everything); repeatable.",
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="Time until the token expires, such as 12h, 30d or 8w. Default: never."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Create a token and print it. It cannot be shown again."""
    expires_at = None if expires is None else datetime.now(UTC) + _duration(expires)
    with connect(url, token) as client:
        created = client.create_token(name, scopes, expires_at=expires_at)
    if as_json:
        print_json(created.model_dump(mode="json", by_alias=True))
        return
    typer.echo(created.token)
    ends = f"expires {format_time(created.expires_at)}" if created.expires_at is not None else "does not expire"
    err.print(
        f"Created {created.id} ({', '.join(created.scopes)}), which {ends}. Store it now; it is not shown again.",
        soft_wrap=True,
    )


@app.command("list")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Also show revoked and expired tokens.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the tokens, newest first. The administrator's token is not among them."""
    with connect(url, token) as client:
        found = client.tokens(valid=None if every else True)
    if as_json:
        print_json([one.model_dump(mode="json", by_alias=True) for one in found])
        return
    if not found:
        err.print("There are no tokens. Create one with `tidal tokens create`.")
        return
    rows = table("token", "name", "scopes", "created", "last used", "expires")
    for one in found:
        rows.add_row(one.id, one.name, " ".join(one.scopes), age(one.created_at), age(one.last_used_at), _end(one))
    out.print(rows)


@app.command()
def revoke(
    tokens: Annotated[list[str], typer.Argument(help="Ids or names of tokens.")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Revoke tokens for ever. Requests and streams that use them end within a second."""
    with connect(url, token) as client:
        ids = [_id(client, one) for one in tokens]
        for one in ids:
            client.revoke_token(one)
            err.print(f"Revoked {one}.", markup=False)
    if as_json:
        print_json(ids)


def _id(client: Client, text: str) -> str:
    if text.startswith(TOKEN_ID):
        return text
    found = next((one.id for one in client.tokens(valid=True) if one.name == text), None)
    if found is None:
        raise NotFoundError(f"there is no valid token named {text!r}; `tidal tokens list` shows all")
    return found


def _end(token: AccessTokenReply) -> str:
    if token.revoked_at is not None:
        return f"revoked {format_time(token.revoked_at)}"
    if token.expires_at is None:
        return "never"
    return format_time(token.expires_at) if token.valid else f"expired {format_time(token.expires_at)}"


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([hdw])", text.strip())
    if found is None or not int(found[1]):
        raise InvalidInputError(f"--expires {text!r} is not a duration; write a number and h, d or w, such as 30d")
    duration = timedelta(**{UNITS[found[2]]: int(found[1])})
    if duration.days > MOST_DAYS:
        raise InvalidInputError(
            f"--expires {text!r} is longer than {MOST_DAYS} d; leave it out for a token without end"
        )
    return duration
