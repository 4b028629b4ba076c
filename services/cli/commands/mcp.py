"""`tidal mcp`: serves the tools of `services.mcp` over stdio, or over HTTP. This process becomes the server."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.connection import Token, Url
from services.cli.processes import stack_environment

DEFAULT_PORT = 4402


def command(
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve streamable HTTP at /mcp. Each request needs the token of its caller."),
    ] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port, with --http.")] = DEFAULT_PORT,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            help="Name by which clients may address the server, besides those of this machine. Can be repeated.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="Folder for replies about completed experiments.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask the API each time.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Serve Tidal to agents by the Model Context Protocol: over stdio, or over HTTP."""
    options: list[str] = []
    if http:
        options += ["--http", "--host", host, "--port", str(port)]
    for name in allowed_hosts or ():
        options += ["--allowed-host", name]
    if cache_dir is not None:
        options += ["--cache-dir", str(cache_dir)]
    if no_cache:
        options.append("--no-cache")
    if url is not None:
        options += ["--url", url]
    environment = stack_environment()
    if token is not None:
        environment["TIDAL_AUTH_TOKEN"] = token  # not an argument, because other users can list those
    os.execve(sys.executable, [sys.executable, "-m", "services.mcp", *options], environment)
