"""Protects all pages of Flower: checks host name and login, delays wrong logins, and forbids display in frames.

Flower itself requires the login on most pages, but not on /metrics, and does not log failed logins. `guard(handlers,
settings, access)` adds a base class to each handler in Flower's table. Only /healthcheck replies without a login and
for any host name. Cookies are HttpOnly and SameSite, and over https also Secure. `services.worker.flower` chooses which
pages exist.
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
from common.access.hosts import unknown_host_message
from common.logging import get_logger

log = get_logger(__name__)

OPEN_PATH = "/healthcheck"
REMOVED_PATHS = ("/login",)
"""Paths that `guard` removes from Flower's table.

Flower's login handler creates an object of another class. That class would not contain the guard, so these paths would
not be protected.
"""
HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class FlowerAccess:
    """The rules for access to Flower: the login `user:password`, the accepted host names, and the trusted proxies."""

    login: str = field(repr=False)
    hosts: KnownHosts
    proxies: TrustedProxies
    rejections: Rejections = field(default_factory=Rejections)


def guard(handlers: list[Any], settings: dict[str, Any], access: FlowerAccess) -> None:
    """Protect every handler in Flower's table, and the handler for static files in its settings.

    Both arguments are changed in place.
    """
    handlers[:] = [_guarded_entry(entry, access) for entry in handlers if not path_of(entry).startswith(REMOVED_PATHS)]
    # The handler for static files is not in the table: Tornado adds it later and takes its class from the settings.
    settings["static_handler_class"] = _guarded(StaticFileHandler, access)


def path_of(entry: Any) -> str:
    """Return the path pattern of an entry in Flower's table, which is a tuple or a tornado.routing.URLSpec."""
    return str(entry[0] if isinstance(entry, tuple) else entry.regex.pattern)


def _guarded_entry(entry: Any, access: FlowerAccess) -> Any:
    if isinstance(entry, tuple):
        return (entry[0], _guarded(entry[1], access), *entry[2:])
    return URLSpec(entry.regex.pattern, _guarded(entry.handler_class, access), entry.kwargs, entry.name)


def _guarded(handler: type, access: FlowerAccess) -> type:
    return type(f"Guarded{handler.__name__}", (Guard, handler), {"access": access})


class Guard:
    """A mixin that protects a tornado RequestHandler. It must precede that class in the list of base classes."""

    access: FlowerAccess
    request: Any
    _login_checked = False

    def set_default_headers(self) -> None:
        """Set headers that every reply contains."""
        super().set_default_headers()  # type: ignore[misc]
        for name, value in HEADERS.items():
            self.set_header(name, value)  # type: ignore[attr-defined]

    async def prepare(self) -> None:
        """Check host name and login before Tornado calls the handler.

        After a refusal, Tornado does not call the handler.
        """
        if self.request.path.rstrip("/") != OPEN_PATH:
            for host in self.request.headers.get_list("Host"):
                if not self.access.hosts.knows(host):
                    self._refuse(421, unknown_host_message(host))
                    return
            if not await self._check_login():
                return
        self._login_checked = True
        preparing = super().prepare()  # type: ignore[misc]
        if isinstance(preparing, Awaitable):
            await preparing

    def get_current_user(self) -> bool:
        """Return True if `prepare` has accepted the login, else raise an error. Flower calls this to check access."""
        if not self._login_checked:
            raise HTTPError(401)
        return True

    def set_cookie(self, name: str, value: str | bytes, *arguments: Any, **options: Any) -> None:
        """Set a cookie that scripts cannot read and that requests from other sites do not contain."""
        options |= {"httponly": True, "samesite": "Strict", "secure": self._is_https()}
        super().set_cookie(name, value, *arguments, **options)  # type: ignore[misc]

    def write_error(self, status_code: int, **options: Any) -> None:
        """Send an error reply. For a 5xx status, it is one line instead of Flower's own page.

        Flower's page for these errors shows a traceback with paths of this machine.
        """
        if status_code >= 500:
            self._refuse(status_code, "Flower failed; see its log for the error")
            return
        super().write_error(status_code, **options)  # type: ignore[misc]

    async def _check_login(self) -> bool:
        given = self.request.headers.get("Authorization")
        if given is not None and _is_login(given, self.access.login):
            return True
        if given is None:
            self._refuse(401, "a login is required")
            return False
        rejections = self.access.rejections
        rejection = rejections.count(self._address())
        if rejection.worth_a_line:
            count = rejection.count
            log.warning("a login was rejected", address=rejection.address, rejected_in_this_minute=count)
        if rejection.delay_seconds is None:
            self.set_header("Retry-After", str(round(rejection.retry_after)))  # type: ignore[attr-defined]
            self._refuse(429, "this address has sent too many wrong logins; a valid login is accepted at any time")
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

    def _is_https(self) -> bool:
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
