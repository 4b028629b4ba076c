"""An embedded Valkey or Redis server: starts it, finds it again while it runs, and stops it.

Replication is not supported.
"""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import redis

from common.redis.client import COMMANDS, connect
from services.local.binaries import find_valkey
from services.local.server import (
    EmbeddedServer,
    end_stray_processes,
    has_working_directory,
    running_process,
    start_server_process,
)
from services.local.server_files import LOOPBACK, write_private


class ValkeyServer(EmbeddedServer):
    """A Valkey server on 127.0.0.1 with a password, an append-only file and no eviction of keys."""

    name = "Valkey"

    @property
    def url(self) -> str:
        """The redis:// URL of database 0."""
        return f"redis://:{self.state.password}@{LOOPBACK}:{self.state.port}/0"

    def _is_responding(self) -> bool:
        try:
            with connect(self.url, COMMANDS) as client:
                return bool(client.ping())
        except redis.RedisError:  # The server does not listen yet, or it is still loading the append-only file.
            return False

    def _process(self) -> Any:
        try:
            pid = int((self.folder / "valkey.pid").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        process = running_process(pid)
        return process if process is not None and has_working_directory(process, self.folder / "data") else None

    def _remove_leftovers(self) -> None:
        end_stray_processes(("valkey-server", "redis-server"), self.folder / "data", (signal.SIGTERM, signal.SIGKILL))

    def _launch(self) -> subprocess.Popen[bytes]:
        program = find_valkey()
        data = self.folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        values = {
            "bind": LOOPBACK,
            "port": self.state.port,
            "requirepass": self.state.password,
            "dir": f'"{data}"',
            "pidfile": f'"{self.folder / "valkey.pid"}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            # With this option, Valkey detects within half a minute that a client's host has lost power. The presence
            # of processes depends on this (`common.redis.presence`).
            "tcp-keepalive": "15",
            "maxmemory": "1gb",
            "maxmemory-policy": "noeviction",
        }
        config = self.folder / "valkey.conf"
        write_private(config, "".join(f"{key} {value}\n" for key, value in values.items()))
        return start_server_process([program.path, config], self.log_path, cwd=data)
