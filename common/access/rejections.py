"""Wrong tokens and passwords, counted per address: each is logged, and from the eleventh in a minute on they are slow.

What is right is never asked of here, so it passes at once from any address, also from one that tries to guess. What is
wrong is answered after a delay that doubles, and where as many wait already, with 429 at once. Counted in memory of one
process, for the addresses that tried last; an IPv6 address counts as its /64, because one machine has all of that.
Leaves out: comparing secrets, and HTTP.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FREE = 10
"""Wrong ones in a window that are answered at once."""
WINDOW_SECONDS = 60.0
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 4.0
MOST_WAITING = 4
"""Replies of one address that wait at once."""
MOST_WAITING_TOGETHER = 16
"""The same over all addresses: each holds a connection."""
MOST_ADDRESSES = 4096


@dataclass
class _Record:
    began: float
    count: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Rejection:
    """What is to be done with a wrong secret. `delay_seconds` None: refuse at once with 429."""

    address: str
    count: int
    """In this window, this one included."""
    delay_seconds: float | None
    retry_after: float
    """Seconds until wrong ones are answered at once again."""

    @property
    def worth_a_line(self) -> bool:
        """Whether to log it: the first ones, then at 16, 32, 64, …, so that guessing fills no log."""
        return self.count <= FREE or self.count & (self.count - 1) == 0


class Rejections:
    """The wrong secrets that one process has seen lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._records)

    def count(self, address: str) -> Rejection:
        """Note a wrong secret of `address`."""
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
            # 2 ** 10 is far above the longest delay; larger powers would only be large numbers.
            delay = None if full else min(FIRST_DELAY_SECONDS * 2 ** min(beyond - 1, 10), LONGEST_DELAY_SECONDS)
        return Rejection(group, record.count, delay, max(1.0, record.began + WINDOW_SECONDS - now))

    @contextmanager
    def waiting(self, rejection: Rejection) -> Iterator[None]:
        """While the block lasts, one more reply of this address waits."""
        record = self._records.get(rejection.address)
        self._waiting += 1
        if record is not None:
            record.waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            # A window that ended meanwhile has taken the number over.
            current = self._records.get(rejection.address, record)
            if current is not None and current.waiting > 0:
                current.waiting -= 1


def address_group(address: str) -> str:
    """What one caller is counted under: the IPv4 address, or the /64 an IPv6 address lies in."""
    host, colon, port = address.partition(":")
    if colon and port.isdigit() and "." in host:  # some proxies pass on the port as well, a new one each time
        address = host
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
