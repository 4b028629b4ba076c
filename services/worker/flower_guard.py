"""What stands before every page of Flower: known host names, the login, slow answers to wrong ones, no frames.

Flower itself asks for the login on most pages, not on /metrics, and says nothing of failed ones. `guard(handlers,
settings, access)` puts a class in front of each handler of its table; only /healthcheck answers without a login, under
any name. Cookies are HttpOnly and SameSite, and Secure where the page comes by https. Leaves out which pages there are.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from tornado.routing import URLSpec
from tornado.web import HTTPError, StaticFileHandler

from common.access import KnownHosts, Rejections, TrustedProxies
from common.access.hosts import refusal
from common.logging import get_logger

log = get_logger(__name__)

OPEN = "/healthcheck"
NOT_OURS = ("/login",)
"""Flower's handler makes an object of another class for it, past any guard; there is no such login here."""
HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Access:
    """Who is let in: the login `user:password`, the names Flower answers to, the proxies in front of it."""

    login: str = field(repr=False)
    hosts: KnownHosts
    proxies: TrustedProxies
    rejections: Rejections = field(default_factory=Rejections)


def guard(handlers: list[Any], settings: dict[str, Any], access: Access) -> None:
    """Put the guard before every handler of Flower's table and of its settings, in place."""
    handlers[:] = [_guarded_entry(entry, access) for entry in handlers if not path_of(entry).startswith(NOT_OURS)]
    # Tornado adds handlers of its own for the static folder.
    settings["static_handler_class"] = _guarded(StaticFileHandler, access)


def path_of(entry: Any) -> str:
    """The pattern of a tuple or a tornado.routing.URLSpec."""
    return str(entry[0] if isinstance(entry, tuple) else entry.regex.pattern)


def _guarded_entry(entry: Any, access: Access) -> Any:
    if isinstance(entry, tuple):
        return (entry[0], _guarded(entry[1], access), *entry[2:])
    return URLSpec(entry.regex.pattern, _guarded(entry.handler_class, access), entry.kwargs, entry.name)


def _guarded(handler: type, access: Access) -> type:
    return type(f"Guarded{handler.__name__}", (Guard, handler), {"access": access})


class Guard:
    """Goes before a tornado RequestHandler in the order of its base classes."""

    access: Access
    request: Any
    _let_in = False

    def set_default_headers(self) -> None:
        """Headers of every reply."""
        super().set_default_headers()  # type: ignore[misc]
        for name, value in HEADERS.items():
            self.set_header(name, value)  # type: ignore[attr-defined]

    async def prepare(self) -> None:
        """Refuse who may not ask; a reply that is finished here goes no further."""
        if self.request.path.rstrip("/") != OPEN:
            for host in self.request.headers.get_list("Host"):
                if not self.access.hosts.knows(host):
                    self._refuse(421, refusal(host))
                    return
            if not await self._knows_the_login():
                return
        self._let_in = True
        preparing = super().prepare()  # type: ignore[misc]
        if isinstance(preparing, Awaitable):
            await preparing

    def get_current_user(self) -> bool:
        """Flower's question; the login has been checked before."""
        if not self._let_in:
            raise HTTPError(401)
        return True

    def set_cookie(self, name: str, value: str | bytes, *arguments: Any, **options: Any) -> None:
        """Cookies that no script reads and no other site sends."""
        options |= {"httponly": True, "samesite": "Strict", "secure": self._by_https()}
        super().set_cookie(name, value, *arguments, **options)  # type: ignore[misc]

    def write_error(self, status_code: int, **options: Any) -> None:
        """Flower shows the traceback of a fault, with the paths of this machine; the log has it."""
        if status_code >= 500:
            self._refuse(status_code, "Flower failed; its log says how")
            return
        super().write_error(status_code, **options)  # type: ignore[misc]

    async def _knows_the_login(self) -> bool:
        given = self.request.headers.get("Authorization")
        if given is not None and _is_login(given, self.access.login):
            return True
        if given is None:
            self._refuse(401, "a login is needed")
            return False
        rejections = self.access.rejections
        rejection = rejections.count(self._address())
        if rejection.worth_a_line:
            count = rejection.count
            log.warning("a login was rejected", address=rejection.address, rejected_in_this_minute=count)
        if rejection.delay_seconds is None:
            self.set_header("Retry-After", str(round(rejection.retry_after)))  # type: ignore[attr-defined]
            self._refuse(429, "too many wrong logins came from this address; a right one is accepted at any time")
            return False
        with rejections.waiting(rejection):
            await asyncio.sleep(rejection.delay_seconds)
        self._refuse(401, "the login is wrong")
        return False

    def _refuse(self, status: int, text: str) -> None:
        handler: Any = self
        if status == 401:
            handler.set_header("WWW-Authenticate", 'Basic realm="flower", charset="UTF-8"')
        handler.set_status(status)
        handler.set_header("Content-Type", "text/plain; charset=UTF-8")
        handler.finish(f"{text}\n")

    def _address(self) -> str:
        return self.access.proxies.client(str(self.request.remote_ip), self.request.headers.get("X-Forwarded-For", ""))

    def _by_https(self) -> bool:
        protocol = str(self.request.protocol)
        if self.access.proxies.trusts(str(self.request.remote_ip)):
            protocol = self.request.headers.get("X-Forwarded-Proto", protocol)
        return protocol == "https"


def _is_login(header: str, login: str) -> bool:
    kind, _, encoded = header.partition(" ")
    try:
        given = b64decode(encoded.strip(), validate=True)
    except ValueError:
        return False
    return kind.lower() == "basic" and hmac.compare_digest(given, login.encode())
