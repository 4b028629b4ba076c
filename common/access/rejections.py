"""Counts wrong secrets (tokens, passwords) per client address. After ten within a minute, replies are delayed.

A correct secret is never counted or delayed, even from an address that has sent wrong ones. The delay doubles with each
wrong secret. If too many replies are already delayed, a request with a wrong secret gets status 429 at once. The counts
are kept in the memory of one process for the most recently seen addresses. IPv6 addresses are counted by their /64
network, because one machine usually owns a whole /64. The callers compare secrets and send replies.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.backoff import doubled

FREE = 10
"""Number of wrong secrets from one address that are answered without a delay in each interval of WINDOW_SECONDS."""
WINDOW_SECONDS = 60.0
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 4.0
MOST_WAITING = 4
"""Largest number of replies to one address that may be delayed at the same time."""
MOST_WAITING_TOGETHER = 16
"""Largest number of replies that may be delayed at the same time, to all addresses; each occupies a connection."""
MOST_ADDRESSES = 4096
"""Largest number of addresses whose counts are kept; the least recently seen address is dropped first."""


@dataclass
class _Record:
    began: float
    count: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Rejection:
    """Describes how to answer a request with a wrong secret."""

    address: str
    count: int
    """Number of wrong secrets from this address in the current interval, including this one."""
    delay_seconds: float | None
    """Seconds to wait before the reply; None means to reply with 429 at once."""
    retry_after: float
    """Seconds until the current interval ends, after which wrong secrets are answered without a delay again."""

    @property
    def worth_a_line(self) -> bool:
        """Return whether to log this rejection: only the first ten, the 16th, 32nd, 64th, …, to keep the log small."""
        return self.count <= FREE or self.count & (self.count - 1) == 0


class Rejections:
    """Counts the wrong secrets that one process has received recently."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        """Return the number of addresses whose counts are kept."""
        return len(self._records)

    def count(self, address: str) -> Rejection:
        """Count a wrong secret from `address` and return how to answer it."""
        now = self._clock()
        group = address_group(address)
        record = self._records.pop(group, None)
        if record is None or now - record.began >= WINDOW_SECONDS:
            record = _Record(now, waiting=record.waiting if record else 0)
        self._records[group] = record
        if len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)
        record.count += 1
        beyond = record.count - FREE
        delay: float | None = 0.0
        if beyond > 0:
            full = record.waiting >= MOST_WAITING or self._waiting >= MOST_WAITING_TOGETHER
            delay = None if full else doubled(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, beyond - 1)
        return Rejection(group, record.count, delay, max(1.0, record.began + WINDOW_SECONDS - now))

    @contextmanager
    def waiting(self, rejection: Rejection) -> Iterator[None]:
        """While the block runs, count one more delayed reply to the address of `rejection`."""
        record = self._records.get(rejection.address)
        self._waiting += 1
        if record is not None:
            record.waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            # If a new interval has begun during the block, `count` has replaced the record by a new one, which has the
            # same `waiting`.
            current = self._records.get(rejection.address, record)
            if current is not None and current.waiting > 0:
                current.waiting -= 1


def address_group(address: str) -> str:
    """Return the key under which `address` is counted: an IPv4 address, or the /64 network of an IPv6 address."""
    host, colon, port = address.partition(":")
    # Some proxies append the client's port. It is removed, because it changes with every connection.
    if colon and port.isdigit() and "." in host:
        address = host
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
