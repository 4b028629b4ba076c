"""Connects to the api: at `--url`, at TIDAL_URL, in the local stack of this folder, or on port 4400 of this machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from common.config import get_settings
from tidal_client import Client, read_instance

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
    """Return a client for these options. The token of the local stack is not sent to a URL that the user gives."""
    if url:
        return Client(url, token)
    if instance := read_instance():
        return Client(instance.api_url, token or instance.token)
    settings = get_settings()
    if token is None and settings.auth_token is not None:
        token = settings.auth_token.get_secret_value() or None
    port = os.environ.get("TIDAL_API_PORT") or settings.port
    return Client(f"http://127.0.0.1:{port}", token)
