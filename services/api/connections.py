"""Limits the number of open connections, and closes connections that exceed a time limit.

The cap is the smaller of `TIDAL_MAX_CONNECTIONS` and the number that the descriptor limit of the process allows. At the
cap, a new connection replaces the one that has been idle longest. A connection without a running request is idle, even
if it has sent part of a header. If every connection runs a request, the api closes a connection whose client neither
sends the body nor reads the reply. If there is no such connection, the new connection is accepted above the cap,
because `admission` must still answer the request of the new client: 200 for health checks, 503 for all others. Time
limits use a clock that stops while the event loop is blocked. No client is therefore disconnected for a delay of the
api. `http_connection` tracks what each connection waits for.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

from common.config import Settings
from services.api.http_metrics import HttpMetrics

DESCRIPTORS_RESERVED = 64
"""Number of file descriptors for the process itself: listener, event loop, database, Celery, logs, connections being
closed."""
DESCRIPTORS_PER_CONNECTION = 2
"""Number of file descriptors per connection: its socket and, during a request, a file or a Redis connection."""
MIN_CONNECTIONS = 8
"""Lower bound of the cap on connections, even if the process may open only a few file descriptors."""
SPARE = 64
"""Number of connections that may be open without a request even if running requests reach the cap. When there are more,
the connection that has been idle longest is closed. A new connection therefore stays open until SPARE later ones were
accepted, so that the api can read a health check even during a flood of connections."""
MAX_CANDIDATES = 64
"""Maximum number of transfers that are compared to find the most stalled one."""
STALLED_SECONDS = 5.0
"""At the cap, a connection whose body or reply has made no progress for STALLED_SECONDS may be closed."""
MAX_SECONDS_PER_CHECK = 0.5
"""Maximum seconds by which one call of `Connections.close_overdue` advances the clock. A longer gap between two calls
means that the event loop was blocked."""
MACOS_DESCRIPTORS = 10_240
"""OPEN_MAX of macOS, the highest soft limit that macOS accepts even if the hard limit is unlimited."""

Reason = Literal["header_timeout", "body_timeout", "unread_reply", "stalled", "made_room", "refused"]


class LimitedConnection(Protocol):
    """The interface of a connection that `Connections` manages."""

    def overdue(self, now: float) -> Reason | None:
        """Return why this connection has exceeded a time limit at `now`, or None."""

    def force_close(self, reason: Reason) -> None:
        """Close the connection. If a request has begun and timed out, send a 408 reply first."""

    def stalled_for(self) -> float:
        """Return by how many seconds the body lags behind the minimum rate.

        While a reply is sent, return the seconds since the client last read a part of the reply.
        """


@dataclass(frozen=True)
class Limits:
    """How many connections and streams may be open at once."""

    connections: int
    """Maximum number of requests that run at the same time, including streams. Open connections without a request count
    towards the same limit, but `SPARE` of them are always allowed, even above the limit."""

    @property
    def streams(self) -> int:
        """Return the maximum number of streams: half of the connections.

        The other half remains free for short requests.
        """
        return max(1, self.connections // 2)


def raise_descriptor_limit() -> None:
    """Raise the soft limit on file descriptors, which is often only 256 or 1024, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, MACOS_DESCRIPTORS):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def limits_of(settings: Settings) -> Limits:
    """Return the limits that the settings and the current descriptor limit of this process allow."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Limits(settings.max_connections)
    allowed = (descriptors - DESCRIPTORS_RESERVED - SPARE) // DESCRIPTORS_PER_CONNECTION
    return Limits(max(MIN_CONNECTIONS, min(settings.max_connections, allowed)))


class Connections:
    """Tracks the open connections of this process, and closes connections to stay within the limits."""

    def __init__(self, limits: Limits, metrics: HttpMetrics) -> None:
        self.limits = limits
        self.time = 0.0
        """A clock in seconds that every call of `close_overdue` advances. Time in which the event loop was blocked is
        not counted."""
        self.draining = False
        """True while the server shuts down. A connection that is accepted during the shutdown is closed at once."""
        self._metrics = metrics
        self._open: set[LimitedConnection] = set()
        # Dictionaries keep the insertion order. The first connection of `_idle` is the one that has been idle longest;
        # the first one of `_transfers` has made no progress for the longest time.
        self._idle: dict[LimitedConnection, None] = {}
        self._transfers: dict[LimitedConnection, None] = {}
        self._checked_at: float | None = None

    def add(self, connection: LimitedConnection) -> None:
        """Add a new connection; closes another one if the cap is reached."""
        self._open.add(connection)
        self.mark_idle(connection)
        busy = len(self._open) - len(self._idle)
        most = max(self.limits.connections, busy + SPARE)
        if len(self._open) > most or busy >= self.limits.connections:
            self._make_room(connection, full=len(self._open) > most)
        self._metrics.connections.set(len(self._open))

    def remove(self, connection: LimitedConnection) -> None:
        """Remove a connection that is closed or about to be closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)
        self._metrics.connections.set(len(self._open))

    def mark_idle(self, connection: LimitedConnection) -> None:
        """Mark `connection` as idle: no request runs, and the last byte has just been received or sent."""
        self._transfers.pop(connection, None)
        self._idle.pop(connection, None)
        if connection in self._open:
            self._idle[connection] = None

    def mark_transferring(self, connection: LimitedConnection) -> None:
        """Mark `connection` as transferring: it has just received part of a body, or its client has not read the reply
        yet."""
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)
        if connection in self._open:
            self._transfers[connection] = None

    def mark_busy(self, connection: LimitedConnection) -> None:
        """Mark `connection` as processing a complete request, for which there is no time limit."""
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)

    def close_overdue(self, now: float) -> None:
        """Close connections that exceed a time limit.

        `now` is the time of the event loop; call this several times a second.
        """
        if self._checked_at is not None:
            self.time += min(now - self._checked_at, MAX_SECONDS_PER_CHECK)
        self._checked_at = now
        for waiting in (self._idle, self._transfers):
            for connection in list(waiting):
                reason = connection.overdue(self.time)
                if reason is not None:
                    self._close(connection, reason)

    def free_descriptors(self) -> None:
        """Close the connections that have been idle longest, so that descriptors become free for new connections."""
        for connection in list(self._idle)[: SPARE // 2]:
            self._close(connection, "made_room")

    def _make_room(self, newest: LimitedConnection, *, full: bool) -> None:
        longest = next(iter(self._idle))
        if full and longest is not newest:
            self._close(longest, "made_room")
            return
        # The first transfers are those without progress for the longest time. If many clients send slowly, close the
        # most stalled connection.
        candidates = islice(self._transfers, MAX_CANDIDATES)
        stalled = max(candidates, key=lambda connection: connection.stalled_for(), default=None)
        if stalled is not None and stalled.stalled_for() >= STALLED_SECONDS:
            self._close(stalled, "stalled")
        elif full:
            self._close(newest, "refused")

    def _close(self, connection: LimitedConnection, reason: Reason) -> None:
        self._metrics.connections_closed.labels(reason).inc()
        self.remove(connection)
        connection.force_close(reason)
