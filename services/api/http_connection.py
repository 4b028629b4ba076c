"""One HTTP connection: uvicorn's HTTP/1.1 protocol, with time limits on requests and replies.

* Header: it must be complete within `TIDAL_REQUEST_HEADER_SECONDS` after the connection was accepted, or after the
  first byte of a later request. Otherwise the reply is 408; a client that has sent no byte is disconnected without a
  reply.
* Body: each body has a balance of at most `TIDAL_REQUEST_BODY_SECONDS`. The balance falls while the api waits for the
  client, and every received byte adds 1 / `TIDAL_REQUEST_BODY_RATE` seconds. At zero the reply is 408. A client may
  therefore pause, and a large upload may be slow, but a trickle of single bytes ends with 408. Time in which the api
  does not read is not counted.
* Reply: the connection is closed when the client has read no part of the reply for twice `TIDAL_REQUEST_BODY_SECONDS`.

uvicorn closes connections that are idle between two requests (`TIDAL_KEEP_ALIVE_SECONDS`). `connections` limits the
number of connections, and `streaming.clients` has shorter time limits for live streams. The kernel closes connections
to unreachable peers (TCP_USER_TIMEOUT, which `__main__` sets).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.config import Settings
from services.api.connections import Connections, Reason
from services.api.errors import ErrorResponse, code_of, problem
from services.api.schemas.completions import error_body

WaitState = Literal["first byte", "header", "body", "reply read", "next request", "nothing"]


@dataclass(frozen=True)
class RequestTimeLimits:
    """Time limits within which a request must arrive."""

    header_seconds: float
    body_seconds: float
    body_bytes_per_second: int

    @classmethod
    def of(cls, settings: Settings) -> RequestTimeLimits:
        """Return the limits that `settings` contains."""
        return cls(settings.request_header_seconds, settings.request_body_seconds, settings.request_body_rate)


class HttpConnection(H11Protocol):
    """A connection that records what it waits for, and since when."""

    def __init__(self, connections: Connections, time_limits: RequestTimeLimits, **options: Any) -> None:
        """`options` are the arguments that uvicorn passes to its protocols."""
        super().__init__(**options)
        self._connections = connections
        self._time_limits = time_limits
        self._waiting_for: WaitState = "first byte"
        self._since = connections.time
        """Time at which the wait for a header began; in other states, the time of the last byte sent or received."""
        self._unsent = 0
        """Number of bytes in the write buffer at the last check; it does not change while the client reads nothing."""
        self._balance = 0.0
        """Seconds that the api may still wait for the client to send more of the body."""
        self._balance_at = connections.time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection, or close it when the server shuts down."""
        super().connection_made(transport)
        if self._connections.draining:
            self.shutdown()  # uvicorn has already closed the other connections, and would wait for this one
            return
        self._since = self._connections.time
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection, which the client or the api has closed."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received bytes of a header or a body."""
        if self.transport.is_closing():  # `force_close` was called between the reading of these bytes and this call
            return
        if self._waiting_for == "body":
            self._reduce_balance()
            earned = len(data) / self._time_limits.body_bytes_per_second
            self._balance = min(self._time_limits.body_seconds, self._balance + earned)
            self._since = self._connections.time
        super().data_received(data)
        self._update_state()

    def on_response_complete(self) -> None:
        """Update the state after a reply. The next request may have arrived already."""
        super().on_response_complete()
        self._update_state()

    def pause_writing(self) -> None:
        """Start the time limit on the reply, because the client reads more slowly than the api writes."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Update the state after the client has read enough of the reply."""
        super().resume_writing()
        self._update_state()

    def overdue(self, now: float) -> Reason | None:
        """Return the time limit that this connection has exceeded at `now`, or None."""
        if self._waiting_for == "reply read":
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._unsent, self._since = unsent, now
            if not unsent and not self.transport.is_closing():
                self._update_state()
            return "unread_reply" if now - self._since > 2 * self._time_limits.body_seconds else None
        if self._waiting_for in ("first byte", "header"):
            return "header_timeout" if now - self._since > self._time_limits.header_seconds else None
        if self._waiting_for == "body":
            self._reduce_balance()
            return "body_timeout" if self._balance <= 0 else None
        return None

    def stalled_for(self) -> float:
        """Return by how many seconds the body lags behind the minimum rate.

        While a reply is sent, return the seconds since the client last read a part of the reply.
        """
        if self._waiting_for == "body":
            self._reduce_balance()
            return self._time_limits.body_seconds - self._balance
        return self._connections.time - self._since

    def force_close(self, reason: Reason) -> None:
        """Close the connection without waiting for the client.

        If a request has timed out before its reply began, send a 408 first.
        """
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        begun = self._waiting_for == "header" or (running and not cycle.response_started)
        if running:
            # The handler that is still running sees that the client has disconnected, and its reply is discarded.
            cycle.disconnected = True
            cycle.message_event.set()
        if begun and reason in ("header_timeout", "body_timeout") and not self.transport.is_closing():
            self.transport.write(self._timeout_reply())
            self.transport.close()
        else:
            self.transport.abort()

    def _wait_for_reader(self) -> None:
        self._waiting_for, self._since = "reply read", self._connections.time
        self._unsent = self.transport.get_write_buffer_size()
        self._connections.mark_transferring(self)

    def _update_state(self) -> None:
        """Record what the connection waits for now."""
        if self.flow.write_paused or self.transport.get_write_buffer_size():
            # Even after the request has been processed, the connection is not idle until the kernel has accepted the
            # whole reply.
            if self._waiting_for != "reply read":
                self._wait_for_reader()
            return
        running = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            if self._waiting_for != "body":
                self._waiting_for, self._since = "body", self._connections.time
                self._balance, self._balance_at = self._time_limits.body_seconds, self._connections.time
        elif running:
            self._waiting_for = "nothing"
        elif self.conn.trailing_data[0]:
            if self._waiting_for not in ("first byte", "header"):
                self._since = self._connections.time
            self._waiting_for = "header"
        elif self.cycle is not None:
            self._waiting_for, self._since = "next request", self._connections.time
        if not running:
            self._connections.mark_idle(self)
        elif self._waiting_for == "body":
            self._connections.mark_transferring(self)
        else:
            self._connections.mark_busy(self)

    def _reduce_balance(self) -> None:
        """Subtract the time since the last call from the balance.

        If the api itself does not read at present, this time is not subtracted.
        """
        now = self._connections.time
        client_waits = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not client_waits:
            self._balance -= now - self._balance_at
        self._balance_at = now

    def _timeout_reply(self) -> bytes:
        if self._waiting_for == "header":
            what = f"the header of the request was not complete after {self._time_limits.header_seconds:g} s"
            reply = problem(408, what)
        else:
            what = (
                "the body of the request arrived too slowly: send at least "
                f"{self._time_limits.body_bytes_per_second} bytes per second, and pause for less than "
                f"{self._time_limits.body_seconds:g} s"
            )
            path = str(self.cycle.scope["path"]).removeprefix(self.root_path)
            reply = problem(408, what)
            if path.startswith("/v1/"):
                reply = ErrorResponse(error_body(408, what, code=code_of(408), param=None), 408)
        headers = [*self.server_state.default_headers, *reply.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return b"HTTP/1.1 408 Request Timeout\r\n" + lines + b"\r\n" + bytes(reply.body)
