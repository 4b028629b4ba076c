"""Connects to the api: at `--url`, at TIDAL_URL, in the local stack of this folder, or on port 4400 of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from tidal_client import Client, find_server

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="TIDAL_URL",
        help="URL of the API. Default: that of the local stack of this folder or, if it is not running, port 4400.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="TIDAL_AUTH_TOKEN", help="Access token. Default: the token of the local stack."),
]


def connect(url: str | None, token: str | None) -> Client:
    """Return a client for these options. The token of the local stack is not sent to a URL that the user gives.

    The client does not repeat requests, because a user who waits at a terminal prefers to see the error at once.
    """
    return Client(*find_server(url, token), retries=0)
