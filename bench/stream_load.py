"""Load generator of `bench.live_clients`: N clients of one stream in a process of its own, on bare asyncio protocols.

Every client checks on its own that the steps of the points come in order, each once, and notes when each event came.
With `--drop-every K` it closes its connection after K events and goes on with `Last-Event-ID`. Commands on standard
input: `stop LAST`: end when every client has seen step LAST, or after 20 s. The result is one line of JSON. No HTTP
library: a thousand clients of one would need both cores.
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
"""Connections being opened at the same time."""


@dataclass(frozen=True)
class Message:
    """One event as it is on the wire; all clients get the same bytes, so it is parsed once for all."""

    id: str
    name: str
    points: tuple[tuple[int, float], ...]
    """Step and time of report, seconds since 1970."""


def parse(event: bytes) -> Message:
    """One event, without its empty line."""
    fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if not line.startswith(":"))
    name, points = fields.get("event", ""), ()
    if name == "metrics":
        points = tuple(
            (p["step"], datetime.fromisoformat(p["time"]).timestamp()) for p in json.loads(fields["data"])["points"]
        )
    return Message(fields.get("id", ""), name, points)


@dataclass
class Tally:
    """What all clients saw together."""

    clients: int
    url_path: str
    drop_every: int
    parsed: dict[bytes, Message] = field(default_factory=dict)
    from_add: Counter[int] = field(default_factory=Counter)
    """Delays in ms, counted: from `MetricsWriter.add` to the client."""
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
    """One follower; a new connection of it keeps its place."""

    def __init__(self, tally: Tally, ready: asyncio.Semaphore) -> None:
        self.tally, self.ready = tally, ready
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
        transport.write(f"GET {self.tally.url_path} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n".encode())

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
        """Take the frames of the chunked encoding off."""
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
        tally = self.tally
        for event in events:
            message = tally.message(event)
            if not message.id:
                tally.resets += message.name == "reset"
                continue
            self.last_id = message.id
            if message.name == "snapshot":
                self.snapshot.set()
                continue
            self.events += 1
            for step, at in message.points:
                tally.received += 1
                if step <= self.step:
                    tally.duplicate += 1
                elif step > self.step + 1:
                    tally.lost += step - self.step - 1
                self.step = max(self.step, step)
                tally.from_add[round(1000 * (now - at))] += 1
                tally.from_redis[round(1000 * now) - int(message.id.split("-")[0])] += 1
            if tally.drop_every and self.events >= tally.drop_every:
                self.transport.abort()
                return


async def hold(client: Client, host: str, port: int, gate: asyncio.Semaphore) -> None:
    """Keep one client connected."""
    loop = asyncio.get_running_loop()
    while True:
        async with gate:
            await loop.create_connection(lambda: client, host, port)
            if not client.last_id:
                await client.snapshot.wait()
        await client.closed.wait()
        client.tally.reconnections += 1
        client._begin()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--drop-every", type=int, default=0)
    arguments = parser.parse_args()
    tally = Tally(arguments.clients, arguments.path, arguments.drop_every)
    gate = asyncio.Semaphore(AT_ONCE)
    clients = [Client(tally, gate) for _ in range(arguments.clients)]
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
    lost = tally.lost + sum(max(0, last - client.step) for client in clients)
    print(
        json.dumps(
            {
                "received": tally.received,
                "lost": lost,
                "duplicate": tally.duplicate,
                "resets": tally.resets,
                "reconnections": tally.reconnections,
                "broken": [repr(error) for error in broken],
                "fromAdd": sorted(tally.from_add.items()),
                "fromRedis": sorted(tally.from_redis.items()),
                "cpuSeconds": time.process_time() - before,
            }
        )
    )


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    asyncio.run(main())
