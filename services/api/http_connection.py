"""One HTTP connection: uvicorn's, with a limit on how long a request may take to arrive.

* The header is complete so many seconds after the connection was accepted, or after the first byte of a further
  request (`TIDAL_REQUEST_HEADER_SECONDS`). Otherwise 408; without a byte the connection is closed without a word.
* A body keeps a balance of seconds, which is at most `TIDAL_REQUEST_BODY_SECONDS`: waiting spends it, every byte adds
  1 / `TIDAL_REQUEST_BODY_RATE`. At nothing left: 408. So a pause is borne, a trickle is not, and a large
  upload over a slow line takes as long as it takes. What the client is not asked to send costs nothing.
* A reply that does not move for twice that time, because the client reads none of it, is given up.

How long a connection may rest between two requests is uvicorn's own (`TIDAL_KEEP_ALIVE_SECONDS`).
Leaves out: how many connections there may be (`connections`); clients of a live stream, which have less time
(`stream_clients`); and peers that are gone, which the kernel gives up (TCP_USER_TIMEOUT in `__main__`).
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

Waits = Literal["first byte", "header", "body", "reply taken", "next request", "nothing"]


@dataclass(frozen=True)
class Patience:
    """How long a request may take to arrive."""

    header_seconds: float
    body_seconds: float
    body_bytes_per_second: int

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        """As the operator set it."""
        return cls(settings.request_header_seconds, settings.request_body_seconds, settings.request_body_rate)


class HttpConnection(H11Protocol):
    """A connection that knows what it waits for, and since when."""

    def __init__(self, board: Connections, patience: Patience, **options: Any) -> None:
        """`options` are those that uvicorn gives its protocols."""
        super().__init__(**options)
        self._board = board
        self._patience = patience
        self._waits: Waits = "first byte"
        self._since = board.time
        """Of a header: since it is waited for. Otherwise: when the last byte moved."""
        self._unsent = 0
        """Bytes of the reply that the kernel had not taken when they last moved."""
        self._balance = 0.0
        self._balance_at = board.time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepted."""
        super().connection_made(transport)
        if self._board.draining:
            self.shutdown()  # uvicorn has asked all others by now, and waits for this one too
            return
        self._since = self._board.time
        self._board.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by either side."""
        self._board.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a header or a body."""
        if self.transport.is_closing():  # given up already; the bytes were read before
            return
        if self._waits == "body":
            self._spend()
            earned = len(data) / self._patience.body_bytes_per_second
            self._balance = min(self._patience.body_seconds, self._balance + earned)
            self._since = self._board.time
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        """A reply is out; a request may be waiting behind it."""
        super().on_response_complete()
        self._settle()

    def pause_writing(self) -> None:
        """The client reads its reply more slowly than it is written."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        self._settle()

    def overdue(self, now: float) -> Reason | None:
        """Why it has to be closed at `now`, if it has to."""
        if self._waits == "reply taken":
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._unsent, self._since = unsent, now
            if not unsent and not self.transport.is_closing():
                self._settle()
            return "unread_reply" if now - self._since > 2 * self._patience.body_seconds else None
        if self._waits in ("first byte", "header"):
            return "header_timeout" if now - self._since > self._patience.header_seconds else None
        if self._waits == "body":
            self._spend()
            return "body_timeout" if self._balance <= 0 else None
        return None

    def stalled_for(self) -> float:
        """Seconds that its body is behind the least rate, or its reply has not moved."""
        if self._waits == "body":
            self._spend()
            return self._patience.body_seconds - self._balance
        return self._board.time - self._since

    def give_up(self, reason: Reason) -> None:
        """408 where a request has begun and no reply has, then close; nobody is waited for."""
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        begun = self._waits == "header" or (running and not cycle.response_started)
        if running:
            # What still runs for it reads that the client is gone, and its reply goes nowhere.
            cycle.disconnected = True
            cycle.message_event.set()
        if begun and reason in ("header_timeout", "body_timeout") and not self.transport.is_closing():
            self.transport.write(self._refusal())
            self.transport.close()
        else:
            self.transport.abort()

    def _await_reader(self) -> None:
        self._waits, self._since = "reply taken", self._board.time
        self._unsent = self.transport.get_write_buffer_size()
        self._board.transfers(self)

    def _settle(self) -> None:
        """Say what is waited for now."""
        if self.flow.write_paused or self.transport.get_write_buffer_size():
            # Not idle, whether or not its request is done; what the kernel has taken is safe.
            if self._waits != "reply taken":
                self._await_reader()
            return
        running = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            if self._waits != "body":
                self._waits, self._since = "body", self._board.time
                self._balance, self._balance_at = self._patience.body_seconds, self._board.time
        elif running:
            self._waits = "nothing"
        elif self.conn.trailing_data[0]:
            if self._waits not in ("first byte", "header"):
                self._since = self._board.time
            self._waits = "header"
        elif self.cycle is not None:
            self._waits, self._since = "next request", self._board.time
        if not running:
            self._board.is_idle(self)
        elif self._waits == "body":
            self._board.transfers(self)
        else:
            self._board.is_busy(self)

    def _spend(self) -> None:
        """Take the time since the last call from the balance, unless the client waited for us."""
        now = self._board.time
        waits_for_us = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not waits_for_us:
            self._balance -= now - self._balance_at
        self._balance_at = now

    def _refusal(self) -> bytes:
        if self._waits == "header":
            what = f"the header of the request was not complete after {self._patience.header_seconds:g} s"
            reply = problem(408, what)
        else:
            what = (
                f"the body of the request stopped arriving: send at least {self._patience.body_bytes_per_second} bytes "
                f"per second, or be silent for less than {self._patience.body_seconds:g} s"
            )
            path = str(self.cycle.scope["path"]).removeprefix(self.root_path)
            reply = problem(408, what)
            if path.startswith("/v1/"):
                reply = ErrorResponse(error_body(408, what, code=code_of(408), param=None), 408)
        headers = [*self.server_state.default_headers, *reply.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return b"HTTP/1.1 408 Request Timeout\r\n" + lines + b"\r\n" + bytes(reply.body)
