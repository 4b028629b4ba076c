"""A TCP proxy on loopback between a process and a server, which tests can cut, silence or slow down.

    with TcpProxy.of_url(database_url) as proxy:
        workers.worker(TIDAL_DATABASE_URL=proxy.url)
        proxy.cut()       # connections are reset, new ones refused at once
        proxy.silence()   # no data passes, but no connection is reset (a partition)
        proxy.heal()      # data passes again; connections that have lost data are reset

One thread runs the proxy's event loop. The proxy cannot limit the bandwidth; a test can read slowly instead.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

Mode = Literal["pass", "cut", "silent"]
_RESET = struct.pack("ii", 1, 0)
"""The value of the socket option SO_LINGER (on, 0 s) with which closing the socket sends RST."""


class TcpProxy:
    """A proxy that accepts connections from its construction until `close`, or until the end of a `with` block."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._mode: Mode = "pass"
        self._latency = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tainted: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._passing = self._call(self._event())
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = ""

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Return a proxy for the server in `url`.

        The `url` of the proxy is the same URL with the address of the proxy.
        """
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None, "the URL needs host and port"
        proxy = cls(parts.hostname, parts.port)
        login, _, _ = parts.netloc.rpartition("@")
        address = f"127.0.0.1:{proxy.port}"
        proxy.url = urlunsplit(parts._replace(netloc=f"{login}@{address}" if login else address))
        return proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def cut(self) -> None:
        """Reset all connections, and from now on every new connection."""
        self._call(self._set("cut"))

    def silence(self) -> None:
        """Discard all data in both directions. Connections stay open, and new ones are accepted."""
        self._call(self._set("silent"))

    def heal(self) -> None:
        """Forward data again. Connections that have lost data are reset, because a real network would time them out."""
        self._call(self._set("pass"))

    def latency(self, seconds: float) -> None:
        """Delay the data in both directions."""
        self._latency = seconds

    @property
    def connections(self) -> int:
        """Number of open client connections."""
        return len(self._writers) // 2

    def close(self) -> None:
        """Reset all connections and end the thread."""
        self._call(self._set("cut"))
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _event(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "silent":
            self._passing.clear()
        else:
            for writer in list(self._writers if mode == "cut" else self._tainted):
                _reset(writer)
            self._tainted.clear()
            self._passing.set()

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._mode == "silent":
            self._tainted.add(writer)
        await self._passing.wait()
        out: asyncio.StreamWriter | None = None
        try:
            if self._mode == "cut" or writer.is_closing():
                return
            back, out = await asyncio.open_connection(*self._target)
            self._writers.add(out)
            await asyncio.gather(self._copy(reader, out, writer), self._copy(back, writer, out))
        except OSError:
            pass
        finally:
            for end in (writer, out):
                if end is not None:
                    _reset(end)
                    self._writers.discard(end)
                    self._tainted.discard(end)

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        while chunk := await source.read(65536):
            if self._latency:
                await asyncio.sleep(self._latency)
            if self._mode == "silent":
                self._tainted |= {target, other}
                continue
            target.write(chunk)
            await target.drain()
        if self._mode == "silent":
            await self._passing.wait()
        if not target.is_closing():
            target.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with RST, so that the peer notices the end at once."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
