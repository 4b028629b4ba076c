"""Parses `TIDAL_ALLOWED_ORIGINS`, a comma-separated list of values that browsers send in the header `Origin`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

ANY = "*"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


def parse_origins(text: str) -> list[str]:
    """Return the origins in a comma-separated list as browsers write them: in lower case, without a default port.

    Raises ValueError for an invalid origin, such as a URL with a path, and for `*` together with other origins.
    """
    found = [_origin(part.strip()) for part in text.split(",") if part.strip()]
    if ANY in found and len(found) > 1:
        raise ValueError("* allows every origin; remove either * or the other origins")
    return list(dict.fromkeys(found))


def _origin(text: str) -> str:
    if text == ANY:
        return text
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    rest = "" if host is None else text.partition("://")[2].lower().removeprefix(f"[{host}]").removeprefix(host)
    if scheme not in _DEFAULT_PORTS or host is None or not _HOST.fullmatch(host) or not re.fullmatch(r"(:\d+)?", rest):
        raise ValueError(
            f"{text!r} is not an origin; write it as http(s)://host or http(s)://host:port, without a path or a slash "
            "at the end"
        )
    written = f"[{host}]" if ":" in host else host
    return f"{scheme}://{written}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{written}:{port}"
