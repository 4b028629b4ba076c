"""The messages between the generator's Celery worker and its engine child: JSON lines over an inherited socketpair.

Worker to child: `{"type": "generate", "request_id": …}`; closing the socket ends the child at once. Child to worker:
`{"type": "ready"}` once it accepts requests, and `{"type": "done", "request_id": …}` after each request, whether it
succeeded or not. Requests and replies themselves go through Redis (`common.redis.generation_request`). Leaves out:
torch, Redis, and starting the child. The worker sets TIDAL_CHILD_FD (`common.child.socket`) and runs `python -m
services.generator.engine_child`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal, TypedDict

from common.child.socket import ChildSocket

ENGINE_MODULE = "services.generator.engine_child"
"""Name of the module that `python -m` runs."""
MAX_LINE_BYTES = 64 * 1024
"""Longest message; a longer line means that the peer does not follow the protocol."""


class EngineMessage(TypedDict):
    """One message, in either direction; `request_id` is empty in `ready`."""

    type: Literal["generate", "ready", "done"]
    request_id: str


class EngineChannel(ChildSocket):
    """One end of the socketpair. `send` may be called from any thread, `messages` from one only."""

    def send(self, kind: Literal["generate", "ready", "done"], request_id: str = "") -> None:
        """Write one line. Raises OSError (BrokenPipeError) when the peer has closed its end."""
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
        raise ValueError(f"not a message of the engine protocol: {line[:200]!r}")
    return EngineMessage(type=message["type"], request_id=str(message.get("request_id", "")))
