"""The socketpair between a process and its child, and the environment variables by which the child finds it.

The messages on the socket are in `common.child.protocol` and `services.generator.engine_protocol`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from typing import Self

CHILD_FD_VARIABLE = "TIDAL_CHILD_FD"
"""Environment variable with the descriptor of the child's end of the socketpair."""
PARENT_PID_VARIABLE = "TIDAL_PARENT_PID"
"""Environment variable with the process id of the parent, by which the child notices that the parent has ended."""


class ChildSocket:
    """One end of the socketpair."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """Create a socketpair; return the parent's end, and the socket whose descriptor the child inherits."""
        parent_end, child_end = socket.socketpair()
        return cls(parent_end), child_end

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the child's end, from TIDAL_CHILD_FD. Raises KeyError if the variable is not set."""
        sock = socket.socket(fileno=int(environ[CHILD_FD_VARIABLE]))
        sock.set_inheritable(False)
        return cls(sock)

    def close(self) -> None:
        """Shut the socket down and close it; the peer reads end of file."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
