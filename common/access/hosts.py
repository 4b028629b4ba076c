"""Decides from the header `Host` whether a server answers a request, which protects against DNS rebinding.

In DNS rebinding, an attacker points the domain name of a web page at an address of this machine. A browser that shows
the page then lets its scripts read the server's replies. The header `Host` of their requests still contains the
attacker's domain name, so a server that answers only to known names is safe. IP addresses are always accepted, because
an attacker cannot serve a page from this machine's address. `localhost` and the names of this machine are known;
TIDAL_ALLOWED_HOSTS adds others. A request without `Host` is accepted, because it does not come from a browser.
X-Forwarded-Host is not read: a proxy either passes `Host` on, or sends the server's address and checks names itself.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import cached_property

SETTING = "TIDAL_ALLOWED_HOSTS"
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PORT = re.compile(r":\d{0,5}")
_SHOWN = 80
"""Maximum number of characters of an unknown name that an error message repeats."""


def parse_hosts(text: str) -> list[str]:
    """Return the host names of a comma-separated list in lower case; raise ValueError for an invalid name."""
    found = [part.strip().lower().rstrip(".") for part in text.split(",") if part.strip()]
    for name in found:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a host name; write names such as tidal.example.org or *.example.org, without a "
                "scheme or a port"
            )
    return list(dict.fromkeys(found))


class KnownHosts:
    """The host names that a server answers to: the machine's names, the list `allowed`, and `listens_on`."""

    def __init__(self, allowed: str = "", *, listens_on: str = "") -> None:
        names = parse_hosts(allowed)
        self._names = {name for name in names if not name.startswith("*.")} | {"localhost"}
        if listens_on:
            self._names.add(listens_on.lower().rstrip("."))
        self._endings = tuple([name[1:] for name in names if name.startswith("*.")] + [".localhost"])
        own = socket.gethostname().lower().rstrip(".")
        self._short = own.partition(".")[0]
        if own:
            self._names |= {own, self._short, f"{self._short}.local"}

    def knows(self, header: str | None) -> bool:
        """Return whether the server answers a request with this `Host` header, which may contain a port."""
        if not header:
            return True
        name = host_name(header)
        if name is None:
            return False
        if _is_address(name):
            return True
        name = name.rstrip(".")
        if name in self._names or name.endswith(self._endings):
            return True
        # Compare with the full name of this machine only if the first label matches: the look-up may query a name
        # server.
        return bool(self._short) and name.partition(".")[0] == self._short and name == self._full_name

    @cached_property
    def _full_name(self) -> str:
        return socket.getfqdn().lower().rstrip(".")


def unknown_host_message(header: str) -> str:
    """Return the error message for a request whose `Host` header has an unknown name."""
    shown = (host_name(header) or header)[:_SHOWN]
    return (
        f"this server does not answer to the name {shown!r}; use an IP address or the machine's own name, or add the "
        f"name to {SETTING}"
    )


def host_name(header: str) -> str | None:
    """Return the name or address in `name:port` or `[address]:port` in lower case; None if the header is malformed."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        well_formed = bool(bracket) and _is_address(name)
    else:
        name, colon, digits = header.partition(":")
        port = colon + digits
        well_formed = bool(name) and not set(name) & set("/@?#\\ \t")
    return name if well_formed and (not port or _PORT.fullmatch(port)) else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
