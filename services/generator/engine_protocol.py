"""What the generator's Celery worker and its engine child say to each other: JSON lines over an inherited socketpair.

Worker to child: `{"type": "generate", "request_id": …}`; a close of the socket ends the child at once.
Child to worker: `{"type": "ready"}` once, when it can take requests, and `{"type": "done", "request_id": …}` after
each, whatever came of it. Requests and replies themselves go through Redis (`common.jobs.generation_request`). Leaves
out torch, Redis, and starting the child: the worker sets TIDAL_CHILD_FD (`common.jobs.child_protocol`) and runs
`python -m services.generator.engine_child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Literal, Self, TypedDict

from common.jobs.child_protocol import CHILD_FD_VARIABLE

ENGINE_MODULE = "services.generator.engine_child"
"""What `python -m` starts."""
MAX_LINE_BYTES = 64 * 1024


class EngineMessage(TypedDict):
    """One line, either way; `request_id` is empty in `ready`."""

    type: Literal["generate", "ready", "done"]
    request_id: str


class EngineChannel:
    """One end of the socketpair. `send` may be called from any thread, `messages` from one only."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """The worker's end, and the socket whose descriptor the child inherits."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The child's end, from TIDAL_CHILD_FD; KeyError when the process was not started by a worker."""
        sock = socket.socket(fileno=int(environ[CHILD_FD_VARIABLE]))
        sock.set_inheritable(False)
        return cls(sock)

    def send(self, kind: Literal["generate", "ready", "done"], request_id: str = "") -> None:
        """Write one line. Raises OSError (BrokenPipeError) when the peer is gone."""
        line = json.dumps(EngineMessage(type=kind, request_id=request_id)).encode() + b"\n"
        with self._send_lock:
            self._socket.sendall(line)

    def messages(self) -> Iterator[EngineMessage]:
        """Messages until the peer closes its end. Raises ValueError for a line that is no message."""
        buffer = bytearray()
        while chunk := self._receive():
            buffer += chunk
            while (end := buffer.find(b"\n")) >= 0:
                yield _decode(bytes(buffer[:end]))
                del buffer[: end + 1]
            if len(buffer) > MAX_LINE_BYTES:
                raise ValueError(f"a line is longer than {MAX_LINE_BYTES} bytes")

    def close(self) -> None:
        """Shut the socket down; the peer reads end of file."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""


def _decode(line: bytes) -> EngineMessage:
    message = json.loads(line)
    if not isinstance(message, dict) or message.get("type") not in ("generate", "ready", "done"):
        raise ValueError(f"not a message of the engine protocol: {line[:200]!r}")
    return EngineMessage(type=message["type"], request_id=str(message.get("request_id", "")))
