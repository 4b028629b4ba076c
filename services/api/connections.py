"""How many connections the api holds, who must leave at the cap, and how long a request may take to arrive.

The cap is the smaller of `TIDAL_MAX_CONNECTIONS` and what the descriptor limit of the process allows. At the cap a new
connection takes the place of the one that has been idle longest; one without a running request is idle, however much
of a header it has sent. Where all run a request, one leaves whose client neither sends its body nor takes its reply;
failing that, the new one is still read, in a place kept in reserve, so that `admission` can answer it: health checks
pass, others get 503.
Time here stands still while the process does: a client whose bytes waited for a busy event loop is not blamed.
Leaves out: what a connection waits for (`http_connection`), and refusing requests (`admission`).
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
"""For the process itself: listener, event loop, database, Celery, logs, and connections that are still to be closed."""
DESCRIPTORS_PER_CONNECTION = 2
"""The socket, and while its request runs a file or a connection to Redis."""
LEAST_CONNECTIONS = 8
SPARE = 64
"""Connections that may always be waiting to send their request, beyond the cap too where all others are running. A new
one is not closed before so many newer ones have come, so that a health check is read in a flood of others."""
MOST_CANDIDATES = 64
"""Transfers among which the one that makes room is looked for."""
STALLED_SECONDS = 5.0
"""At the cap a body or a reply that has not moved for so long makes room."""
MOST_SECONDS_PER_SWEEP = 0.5
MACOS_DESCRIPTORS = 10_240
"""OPEN_MAX of macOS, which refuses more even where the hard limit is unlimited."""

Reason = Literal["header_timeout", "body_timeout", "unread_reply", "stalled", "made_room", "refused"]


class Connection(Protocol):
    """What the board asks of a connection."""

    def overdue(self, now: float) -> Reason | None:
        """Why it has to be closed at `now`, if it has to."""

    def give_up(self, reason: Reason) -> None:
        """Answer where a request has begun, and close."""

    def stalled_for(self) -> float:
        """Seconds that its body is behind the least rate, or its reply has not moved."""


@dataclass(frozen=True)
class Limits:
    """How many at once."""

    connections: int
    """Requests in progress, streams among them; and connections, but for a few that wait to be answered 503."""

    @property
    def streams(self) -> int:
        """Half, so that streams leave room for requests that end."""
        return max(1, self.connections // 2)


def raise_descriptor_limit() -> None:
    """Take the descriptors that the system grants this process (the hard limit); the soft one is often 256 or 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, MACOS_DESCRIPTORS):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def limits_of(settings: Settings) -> Limits:
    """The limits of this process as it is."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Limits(settings.max_connections)
    allowed = (descriptors - DESCRIPTORS_RESERVED - SPARE) // DESCRIPTORS_PER_CONNECTION
    return Limits(max(LEAST_CONNECTIONS, min(settings.max_connections, allowed)))


class Connections:
    """The open connections of this process."""

    def __init__(self, limits: Limits, metrics: HttpMetrics) -> None:
        self.limits = limits
        self.time = 0.0
        """Seconds in which this process could hear its clients; moves with every sweep."""
        self.draining = False
        """The server stops: a connection that was accepted just before is closed at once."""
        self._metrics = metrics
        self._open: set[Connection] = set()
        # Dictionaries keep the order of insertion: the first has been idle, or has not moved, longest.
        self._idle: dict[Connection, None] = {}
        self._transfers: dict[Connection, None] = {}
        self._swept_at: float | None = None

    def opened(self, connection: Connection) -> None:
        """A new connection; another one may have to leave for it."""
        self._open.add(connection)
        self.is_idle(connection)
        busy = len(self._open) - len(self._idle)
        most = max(self.limits.connections, busy + SPARE)
        if len(self._open) > most or busy >= self.limits.connections:
            self._make_room(connection, full=len(self._open) > most)
        self._metrics.connections.set(len(self._open))

    def closed(self, connection: Connection) -> None:
        """It is gone, or about to be."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)
        self._metrics.connections.set(len(self._open))

    def is_idle(self, connection: Connection) -> None:
        """It runs no request, and has just sent or been sent something."""
        self._transfers.pop(connection, None)
        self._idle.pop(connection, None)
        if connection in self._open:
            self._idle[connection] = None

    def transfers(self, connection: Connection) -> None:
        """A body that is not complete has just brought something, or a reply waits for the client to take it."""
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)
        if connection in self._open:
            self._transfers[connection] = None

    def is_busy(self, connection: Connection) -> None:
        """It runs a request that has arrived; nothing is waited for."""
        self._idle.pop(connection, None)
        self._transfers.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Close what is overdue. `now`: the clock of the event loop; several times a second."""
        if self._swept_at is not None:
            self.time += min(now - self._swept_at, MOST_SECONDS_PER_SWEEP)
        self._swept_at = now
        for waiting in (self._idle, self._transfers):
            for connection in list(waiting):
                reason = connection.overdue(self.time)
                if reason is not None:
                    self._close(connection, reason)

    def free_descriptors(self) -> None:
        """Close the connections idle longest, because the system has no descriptor left for a new one."""
        for connection in list(self._idle)[: SPARE // 2]:
            self._close(connection, "made_room")

    def _make_room(self, newest: Connection, *, full: bool) -> None:
        longest = next(iter(self._idle))
        if full and longest is not newest:
            self._close(longest, "made_room")
            return
        # Those that have not moved longest; of a crowd that trickles in turn, the one that is furthest behind.
        candidates = islice(self._transfers, MOST_CANDIDATES)
        stalled = max(candidates, key=lambda connection: connection.stalled_for(), default=None)
        if stalled is not None and stalled.stalled_for() >= STALLED_SECONDS:
            self._close(stalled, "stalled")
        elif full:
            self._close(newest, "refused")

    def _close(self, connection: Connection, reason: Reason) -> None:
        self._metrics.connections_closed.labels(reason).inc()
        self.closed(connection)
        connection.give_up(reason)
