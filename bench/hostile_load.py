"""The attacking process of `bench.hostile_clients`, with idle connections, half-sent headers and half-sent bodies.

It opens `--rate` connections per second and keeps them open for `--seconds`. It reopens connections that the server
closes, at most `--again` per second. It prints `open` once it has tried to open all connections, and at the end one
line of JSON with counts.
"""

from __future__ import annotations

import argparse
import errno
import json
import resource
import selectors
import socket
import time
from collections import Counter

HALF_HEADER = b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nX-Half: "
HALF_BODY = (
    b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)
TURN_SECONDS = 0.05
"""Longest time in seconds that one call of `turn` waits for socket events."""


class Load:
    """The open connections, and counts of opened and closed connections, errors and responses."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self.counted: Counter[str] = Counter()

    def open(self, first: bytes) -> None:
        """Start to open a connection. `turn` sends the bytes `first` once the connection is open."""
        client = socket.socket()
        client.setblocking(False)
        error = client.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            self.counted[f"error {errno.errorcode.get(error, error)}"] += 1
            client.close()
            return
        self.counted["opened"] += 1
        self._selector.register(client, selectors.EVENT_WRITE, first)

    def turn(self, seconds: float) -> list[bytes]:
        """Wait up to `seconds` for socket events.

        For each connection that the server closed, return the bytes that `open` got as `first`.
        """
        closed = []
        for key, events in self._selector.select(seconds):
            client, first = key.fileobj, key.data
            assert isinstance(client, socket.socket)
            try:
                if events & selectors.EVENT_WRITE:
                    client.send(first)
                    self._selector.modify(client, selectors.EVENT_READ, first)
                    continue
                received = client.recv(65536)
            except OSError:
                received = b""
            if received:
                self.counted[received[:12].decode(errors="replace")] += 1
                continue
            self._selector.unregister(client)
            client.close()
            self.counted["closed by the server"] += 1
            closed.append(first)
        return closed

    def held(self) -> int:
        """Return the number of open connections."""
        return len(self._selector.get_map())

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("idle", "half-headers", "half-bodies", "rate", "again"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first_bytes = [b""] * arguments.idle + [HALF_HEADER] * arguments.half_headers + [HALF_BODY] * arguments.half_bodies
    load = Load((arguments.host, arguments.port))
    max_held = 0
    waiting: list[bytes] = []
    begun = time.monotonic()
    for number, first in enumerate(first_bytes):
        load.open(first)
        waiting += load.turn(0)
        while (early := begun + number / arguments.rate - time.monotonic()) > 0:
            waiting += load.turn(early)
    print("open", flush=True)
    until = time.monotonic() + arguments.seconds
    again, at = 0.0, time.monotonic()
    while (now := time.monotonic()) < until:
        waiting += load.turn(TURN_SECONDS)
        max_held = max(max_held, load.held())
        again, at = min(arguments.again, again + (now - at) * arguments.again), now
        while waiting and again >= 1:
            load.open(waiting.pop())
            again -= 1
    print(json.dumps({"held": load.held(), "most": max_held, **load.counted}), flush=True)
    load.close()


if __name__ == "__main__":
    main()
