"""Finds the api server and its token: given values, the environment, the local stack of this folder, or port 4400.

The command line and `Client()` use the same search. It needs nothing of Tidal but this package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .local_instance import read_instance

DEFAULT_PORT = 4400


class Server(NamedTuple):
    """Where to send requests. The token is None if there is none to send."""

    url: str
    token: str | None


def find_server(url: str | None = None, token: str | None = None) -> Server:
    """Return the server to connect to.

    The URL is `url`, TIDAL_URL, that of the running local stack in TIDAL_HOME or `.tidal`, or that of the port on this
    machine that TIDAL_API_PORT, TIDAL_PORT or PORT names (by default 4400). The token is `token` or TIDAL_AUTH_TOKEN.
    If no URL is given, it can also be the token of the local stack, or TIDAL_AUTH_TOKEN in the file `.env` of the
    working directory. These two are never sent to a URL that is given.
    """
    url = url or os.environ.get("TIDAL_URL")
    token = token or os.environ.get("TIDAL_AUTH_TOKEN") or None
    if url:
        return Server(url, token)
    if instance := read_instance():
        return Server(instance.api_url, token or instance.token)
    known = {**read_dotenv(Path(".env")), **os.environ}
    port = next((known[name] for name in ("TIDAL_API_PORT", "TIDAL_PORT", "PORT") if known.get(name)), DEFAULT_PORT)
    return Server(f"http://127.0.0.1:{port}", token or known.get("TIDAL_AUTH_TOKEN") or None)


def read_dotenv(path: Path) -> Mapping[str, str]:
    """Return the variables of a file with lines `NAME=value`; nothing if it cannot be read.

    Supports comments, `export`, and values in quotes, which are taken as they are, without escapes or references.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    found = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in ("'", '"') and value[0] in value[1:]:
            value = value[1 : value.index(value[0], 1)]
        else:
            value = value.split(" #")[0].rstrip()
        found[name.strip()] = value
    return found
