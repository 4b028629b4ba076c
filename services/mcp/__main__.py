"""`python -m services.mcp`: serve MCP over stdio, or over HTTP with `--http`. `tidal mcp` starts it.

Over stdio, standard output belongs to the protocol; messages for people go to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.mcp.cache import DiskCache
from tidal_client import find_server

DEFAULT_PORT = 4402


def main() -> int:
    """Serve until the client closes standard input, or until a signal; return the exit status."""
    given = parse(sys.argv[1:])
    try:
        from services.mcp.access import Access
        from services.mcp.server import http_app, make_server
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):
            raise
        sys.stderr.write("tidal mcp: the package mcp is not installed; install it with: pip install '.[mcp]'\n")
        return 1
    server = find_server(given.url, os.environ.get("TIDAL_AUTH_TOKEN"))
    cache = None if given.no_cache else DiskCache(given.cache_dir)
    if cache is not None and cache.problem:
        sys.stderr.write(f"tidal mcp: {cache.problem}\n")
    access = Access(server.url, None if given.http else server.token, cache, from_requests=given.http)
    mcp_server = make_server(access, _version())
    if not given.http:
        mcp_server.run("stdio")
        return 0
    import uvicorn

    sys.stderr.write(f"tidal mcp: http://{given.host}:{given.port}/mcp, for the api at {server.url}\n")
    hosts = [name.strip() for names in given.allowed_host for name in names.split(",") if name.strip()]
    uvicorn.run(http_app(mcp_server, hosts), host=given.host, port=given.port, log_level="warning", access_log=False)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser("tidal mcp")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--allowed-host", action="append", default=[])
    parser.add_argument("--url")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    parser.add_argument("--no-cache", action="store_true")
    return parser.parse_args(arguments)


def default_cache_dir() -> Path:
    """Return `tidal/mcp` in the cache folder of the user."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tidal" / "mcp"


def _version() -> str:
    try:
        return version("tidal")
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
