"""Names in the header `Host` that a server answers to.

A web page can point a name of its own at an address of this machine (DNS rebinding); its visitors' browsers then take
the server for a part of that page. The header `Host` still carries the name, so a server that answers only to names it
knows is safe. An address is always known: no page can be loaded from one that it does not own. `localhost` and the
names of this machine are known, others come from TIDAL_ALLOWED_HOSTS. A request without the header is let through,
because every browser sends it. Leaves out X-Forwarded-Host, which is not read: a proxy passes the header on, or asks by
address and checks names itself.
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
"""Characters of an unknown name in a message."""


def parse_hosts(text: str) -> list[str]:
    """The names of a comma-separated list in lower case; ValueError for what is none, such as one with a port."""
    found = [part.strip().lower().rstrip(".") for part in text.split(",") if part.strip()]
    for name in found:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no host name; write names such as tidal.example.org or *.example.org, without a scheme "
                "and a port"
            )
    return list(dict.fromkeys(found))


class KnownHosts:
    """The names of this machine and those of a list; `listens_on` is what the server was told to listen on."""

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
        """Whether a request with this header `Host` is answered; with or without a port."""
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
        # Finding the full name may ask a name server, so only a name that may be it is worth the question.
        return bool(self._short) and name.partition(".")[0] == self._short and name == self._full_name

    @cached_property
    def _full_name(self) -> str:
        return socket.getfqdn().lower().rstrip(".")


def refusal(header: str) -> str:
    """What a client is told whose name is not known."""
    shown = (host_name(header) or header)[:_SHOWN]
    return (
        f"this server does not answer to the name {shown!r}; ask by an address or by the machine's own name, or add "
        f"the name to {SETTING}"
    )


def host_name(header: str) -> str | None:
    """The name or address of `name:port` or `[address]:port`, in lower case; None where it is neither."""
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
