"""A proxy for PostgreSQL that terminates the backend at a COMMIT: before the COMMIT is sent, or after it was executed.

In the second case the transaction is committed, but the client gets no reply. A client that loses its connection at a
COMMIT therefore cannot know whether it was executed; every write by the owner of a job must tolerate this. For the
proxy, a transaction consists of all messages since the last COMMIT or ROLLBACK. Partitions and latency are in
`tests.faults.proxy`. TLS is not supported.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import psycopg
from sqlalchemy import make_url

When = Literal["before", "done"]
Choose = Callable[[bytes], When | None]
"""A function that receives the bytes of a transaction, and returns when to terminate its backend.

None means not at all.
"""

_COMMIT = b"Q" + struct.pack("!i", 11) + b"COMMIT\0"
_ROLLBACK = b"Q" + struct.pack("!i", 13) + b"ROLLBACK\0"
_DONE = b"C" + struct.pack("!i", 11) + b"COMMIT\0"


class CommitProxy:
    """Forwards the connections of clients to PostgreSQL. Clients connect to `url`.

    `choose` is called once per COMMIT, in the thread of the proxy.
    """

    def __init__(self, database_url: str, choose: Choose) -> None:
        target = make_url(database_url)
        assert target.host is not None and target.port is not None
        self._target, self._choose = (target.host, target.port), choose
        self._admin = {
            "host": target.host,
            "port": target.port,
            "user": target.username,
            "password": target.password,
            "dbname": "postgres",
        }
        self.met: list[When] = []
        """One entry for each termination so far. An entry is "done" only if the server has confirmed the COMMIT."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="commit proxy", daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(20)
        port = int(self._server.sockets[0].getsockname()[1])
        self.url = target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, out = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(reader, writer, back, out, self)
        try:
            await connection.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            out.transport.abort()

    def judge(self, transaction: bytes) -> When | None:
        """Return when to terminate the backend of this COMMIT; None means not at all."""
        return self._choose(transaction)

    async def terminate(self, client_port: int) -> None:
        """Terminate the backend to which the proxy is connected from the port `client_port`."""
        await asyncio.to_thread(self._terminate, client_port)

    def _terminate(self, client_port: int) -> None:
        query = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE client_port = %s"
        with psycopg.connect(**self._admin, autocommit=True) as connection:
            connection.execute(query, (client_port,))


class _Connection:
    """The connection of one client, and the connection to its backend."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        out: asyncio.StreamWriter,
        proxy: CommitProxy,
    ) -> None:
        self._reader, self._writer, self._back, self._out, self._proxy = reader, writer, back, out, proxy
        self._port = int(out.get_extra_info("socket").getsockname()[1])
        self._swallow = asyncio.Event()
        self._answered = asyncio.Event()
        out.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Forward messages until the client or the server closes its connection."""
        answers = asyncio.create_task(self._answers())
        try:
            await self._requests()
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _requests(self) -> None:
        transaction = b""
        while chunk := await self._reader.read(65536):
            transaction += chunk
            if transaction.endswith(_COMMIT):
                when = self._proxy.judge(transaction)
                transaction = b""
                if when == "before":
                    await self._proxy.terminate(self._port)
                    self._proxy.met.append(when)
                elif when == "done":
                    self._swallow.set()
                    self._out.write(chunk)
                    await self._answered.wait()
                    await self._proxy.terminate(self._port)
                    return
            elif transaction.endswith(_ROLLBACK):
                transaction = b""
            self._out.write(chunk)
            await self._out.drain()

    async def _answers(self) -> None:
        """Forward data from the server to the client, except a reply to COMMIT that must not arrive."""
        kept = b""
        while chunk := await self._back.read(65536):
            if self._swallow.is_set():
                kept += chunk
                if _DONE in kept and not self._answered.is_set():
                    self._proxy.met.append("done")
                    self._answered.set()
                continue
            self._writer.write(chunk)
            await self._writer.drain()
        self._answered.set()
        self._writer.close()
