"""The messages between the generator's Celery worker and its child, the engine process.

The messages are JSON lines over an inherited socketpair. The worker sends `{"type": "generate", "request_id": …}`, and
closes the socket to end the child at once. The child sends `{"type": "ready"}` once it accepts requests, and `{"type":
"done", "request_id": …}` after each request, whether the request succeeded or not. The contents of requests and replies
go through Redis (`common.redis.generation_request`). The worker passes the file descriptor of the socket in
TIDAL_CHILD_FD (`common.child.socket`) and starts the child with `python -m services.generator.engine_child`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal, TypedDict

from common.child.socket import ChildSocket

ENGINE_MODULE = "services.generator.engine_child"
"""The module of the engine process, for `python -m`."""
MAX_LINE_BYTES = 64 * 1024
"""Longest allowed message in bytes. A longer line means that the peer does not follow the protocol."""


class EngineMessage(TypedDict):
    """A message in either direction. `request_id` is empty in the message `ready`."""

    type: Literal["generate", "ready", "done"]
    request_id: str


class EngineChannel(ChildSocket):
    """One end of the socketpair. Any thread may call `send`; only one thread may call `messages`."""

    def send(self, kind: Literal["generate", "ready", "done"], request_id: str = "") -> None:
        """Send one message. Raises OSError (BrokenPipeError) if the peer has closed its end."""
        line = json.dumps(EngineMessage(type=kind, request_id=request_id)).encode() + b"\n"
        with self._send_lock:
            self._socket.sendall(line)

    def messages(self) -> Iterator[EngineMessage]:
        """Yield messages until the peer closes its end. Raises ValueError for a line that is not a message."""
        buffer = bytearray()
        while chunk := self._receive():
            buffer += chunk
            while (end := buffer.find(b"\n")) >= 0:
                yield _decode(bytes(buffer[:end]))
                del buffer[: end + 1]
            if len(buffer) > MAX_LINE_BYTES:
                raise ValueError(f"a line is longer than {MAX_LINE_BYTES} bytes")

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""


def _decode(line: bytes) -> EngineMessage:
    message = json.loads(line)
    if not isinstance(message, dict) or message.get("type") not in ("generate", "ready", "done"):
        raise ValueError(f"this line is not a message of the engine protocol: {line[:200]!r}")
    return EngineMessage(type=message["type"], request_id=str(message.get("request_id", "")))
