"""The load generator of `bench.live_clients`: many clients of one event stream, as asyncio protocols in one process.

Each client checks that points arrive once and in order, and records when each event arrives. With `--drop-every K` a
client closes its connection after every K events and reconnects with `Last-Event-ID`. After the line `stop LAST` on
standard input, the process ends once every client has received step LAST, or after 20 s. It prints one line of JSON. It
does not use an HTTP library, because a thousand clients of a library would use all CPU time of two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

PATIENCE_SECONDS = 20.0
AT_ONCE = 50
"""Largest number of connections that are being opened at the same time."""


@dataclass(frozen=True)
class Message:
    """A parsed event. All clients receive the same bytes, so each event is parsed only once."""

    id: str
    name: str
    points: tuple[tuple[int, float], ...]
    """(step, time of `MetricsWriter.add` in seconds since 1970) of each point."""


def parse(event: bytes) -> Message:
    """Return the parsed event; `event` does not include the empty line at its end."""
    fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if not line.startswith(":"))
    name = fields.get("event", "")
    points: tuple[tuple[int, float], ...] = ()
    if name == "metrics":
        points = tuple(
            (p["step"], datetime.fromisoformat(p["time"]).timestamp()) for p in json.loads(fields["data"])["points"]
        )
    return Message(fields.get("id", ""), name, points)


@dataclass
class Totals:
    """Counts of all clients together."""

    clients: int
    url_path: str
    drop_every: int
    parsed: dict[bytes, Message] = field(default_factory=dict)
    from_add: Counter[int] = field(default_factory=Counter)
    """{delay in ms from `MetricsWriter.add` to the client: number of points}."""
    from_redis: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    duplicate: int = 0
    received: int = 0
    resets: int = 0
    reconnections: int = 0

    def message(self, event: bytes) -> Message:
        found = self.parsed.get(event)
        if found is None:
            if len(self.parsed) > 2000:
                self.parsed.clear()
            found = self.parsed[event] = parse(event)
        return found


class Client(asyncio.Protocol):
    """A client of the event stream. When it reconnects, it continues after its last event (`Last-Event-ID`)."""

    def __init__(self, totals: Totals, ready: asyncio.Semaphore) -> None:
        self.totals, self.ready = totals, ready
        self.last_id = ""
        self.step = 0
        self.snapshot = asyncio.Event()
        self.closed = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        self.head = True
        self.raw = b""
        self.text = b""
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.closed.clear()
        cursor = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        transport.write(f"GET {self.totals.url_path} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.raw += data
        if self.head:
            if b"\r\n\r\n" not in self.raw:
                return
            first, self.raw = self.raw.split(b"\r\n\r\n", 1)
            if not first.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {first!r}")
            self.head = False
        self._chunks()
        if b"\n\n" in self.text:
            *events, self.text = self.text.split(b"\n\n")
            self._events(events, now)

    def _chunks(self) -> None:
        """Decode the complete chunks (of HTTP's chunked encoding) in `raw`, and move their content to `text`."""
        while True:
            end = self.raw.find(b"\r\n")
            if end < 0:
                return
            size = int(self.raw[:end], 16)
            if len(self.raw) < end + 4 + size:
                return
            self.text += self.raw[end + 2 : end + 2 + size]
            self.raw = self.raw[end + 4 + size :]

    def _events(self, events: Iterable[bytes], now: float) -> None:
        totals = self.totals
        for event in events:
            message = totals.message(event)
            if not message.id:
                totals.resets += message.name == "reset"
                continue
            self.last_id = message.id
            if message.name == "snapshot":
                self.snapshot.set()
                continue
            self.events += 1
            for step, at in message.points:
                totals.received += 1
                if step <= self.step:
                    totals.duplicate += 1
                elif step > self.step + 1:
                    totals.lost += step - self.step - 1
                self.step = max(self.step, step)
                totals.from_add[round(1000 * (now - at))] += 1
                totals.from_redis[round(1000 * now) - int(message.id.split("-")[0])] += 1
            if totals.drop_every and self.events >= totals.drop_every:
                self.transport.abort()
                return


async def hold(client: Client, host: str, port: int, gate: asyncio.Semaphore) -> None:
    """Connect a client again whenever its connection closes."""
    loop = asyncio.get_running_loop()
    while True:
        async with gate:
            await loop.create_connection(lambda: client, host, port)
            if not client.last_id:
                await client.snapshot.wait()
        await client.closed.wait()
        client.totals.reconnections += 1
        client._begin()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--drop-every", type=int, default=0)
    arguments = parser.parse_args()
    totals = Totals(arguments.clients, arguments.path, arguments.drop_every)
    gate = asyncio.Semaphore(AT_ONCE)
    clients = [Client(totals, gate) for _ in range(arguments.clients)]
    tasks = [asyncio.create_task(hold(client, arguments.host, arguments.port, gate)) for client in clients]
    for client in clients:
        await client.snapshot.wait()
    print("connected", flush=True)
    before = time.process_time()
    command = await asyncio.to_thread(sys.stdin.readline)
    last = int(command.split()[1])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(client.step < last for client in clients) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    broken = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    lost = totals.lost + sum(max(0, last - client.step) for client in clients)
    print(
        json.dumps(
            {
                "received": totals.received,
                "lost": lost,
                "duplicate": totals.duplicate,
                "resets": totals.resets,
                "reconnections": totals.reconnections,
                "broken": [repr(error) for error in broken],
                "fromAdd": sorted(totals.from_add.items()),
                "fromRedis": sorted(totals.from_redis.items()),
                "cpuSeconds": time.process_time() - before,
            }
        )
    )


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    asyncio.run(main())
