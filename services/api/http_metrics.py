"""Metrics of this process for `/metrics`: HTTP requests, connections, stream clients, rejected and limited requests.

Each app has its own registry, so that several apps in one process, as in tests, do not collide.
`operations.prometheus_metrics` adds metrics that are read at each scrape, such as the number of jobs by status.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Values of the label `method`. HTTP allows any word as a method, but every label value stays in memory, so all other
methods are counted as `other`."""


class HttpMetrics:
    """The Prometheus registry of an app and its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ["method", "path", "status"]
        self._seconds = Histogram(
            "tidal_http_request_seconds",
            "Time from the first byte of a request to the last byte of its reply",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge("tidal_http_requests_in_flight", "Requests being answered", registry=self.registry)
        self.connections = Gauge("tidal_http_connections", "Open connections", registry=self.registry)
        self.connections_closed = Counter(
            "tidal_http_connections_closed",
            "Connections that were closed because of a time limit or to make room",
            ["reason"],
            registry=self.registry,
        )
        self.sse_clients = Gauge("tidal_sse_clients", "Connected stream clients", registry=self.registry)
        self.sse_readers = Gauge("tidal_sse_readers", "Redis streams being read", registry=self.registry)
        self.sse_events = Counter("tidal_sse_events", "Events that were sent to stream clients", registry=self.registry)
        self.sse_dropped = Counter(
            "tidal_sse_clients_dropped", "Stream clients closed because they read too slowly", registry=self.registry
        )
        self.sse_resets = Counter("tidal_sse_resets", "Stream cursors that had expired", registry=self.registry)
        self.rate_limited = Counter("tidal_rate_limited", "Requests answered with 429", registry=self.registry)
        self.rejected_tokens = Counter("tidal_rejected_tokens", "Wrong tokens that were sent", registry=self.registry)
        self.rate_limit_unavailable = Counter(
            "tidal_rate_limit_unavailable", "Requests allowed because Redis did not answer", registry=self.registry
        )

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count the request as in flight while it is being answered."""
        self._in_flight.inc()
        try:
            yield
        finally:
            self._in_flight.dec()

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Record the duration of an answered request; for a stream, this is its whole lifetime."""
        if method not in METHODS:
            method = "other"
        self._seconds.labels(method, path, str(status)).observe(seconds)
