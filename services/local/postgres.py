"""An embedded PostgreSQL server: creates its data folder, starts it, finds it again while it runs, and stops it.

It makes no backups, does no tuning, and does not upgrade data to another major version; it uses a PostgreSQL of the
version that wrote the data.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from common.config.child_environment import server_environment
from common.errors import StorageError
from services.local.binaries import find_postgres
from services.local.server import (
    EmbeddedServer,
    end_stray_processes,
    has_working_directory,
    running_process,
    start_server_process,
)
from services.local.server_files import LOOPBACK, home_for, make_home, postgres_account, readable_program

NAME = "tidal"
"""Name of both the user and the database in PostgreSQL."""


class PostgresServer(EmbeddedServer):
    """A PostgreSQL server on 127.0.0.1, with password login (SCRAM) and without a unix socket.

    If this process runs as root, the server runs as the user `nobody`.
    """

    name = "PostgreSQL"
    # On SIGINT, PostgreSQL ends all sessions and leaves consistent files ("fast shutdown").
    _stop_signal = signal.SIGINT

    def __init__(
        self, folder: Path | str, port: int | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` are parameters of the server, such as {"fsync": "off"} for a temporary server."""
        super().__init__(folder, port)
        self._settings = dict(settings or {})

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `tidal`."""
        return f"postgresql+psycopg://{NAME}:{self.state.password}@{LOOPBACK}:{self.state.port}/{NAME}"

    def _home(self) -> Path:
        return home_for(self.folder, postgres_account())

    @property
    def data(self) -> Path:
        """The folder that contains PostgreSQL's data."""
        return self._home() / "data"

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=LOOPBACK,
            port=self.state.port,
            user=NAME,
            password=self.state.password,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def _is_responding(self) -> bool:
        try:
            with self._connect("postgres") as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row is not None and Path(row[0]) == self.data

    def _process(self) -> Any:
        data = self.data
        try:
            pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        process = running_process(pid)
        return process if process is not None and has_working_directory(process, data) else None

    def _remove_leftovers(self) -> None:
        # If the main process was killed, a busy backend (the process of one session) may still run. The shared memory
        # of the backend would prevent a new start.
        data = self.data
        end_stray_processes(("postgres",), data, (signal.SIGQUIT, signal.SIGKILL))
        # Now no process uses the folder. `postmaster.pid` must be deleted, because PostgreSQL would not start if the
        # process id in this file belonged to a zombie or to another process.
        (data / "postmaster.pid").unlink(missing_ok=True)

    def _launch(self) -> subprocess.Popen[bytes]:
        account = postgres_account()
        make_home(self.folder, account)
        data = self.data
        version = data / "PG_VERSION"
        program = find_postgres(int(version.read_text(encoding="utf-8")) if version.exists() else None)
        binaries = readable_program(program.folder, account)
        user: dict[str, Any] = (
            {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
        )
        if not version.exists():
            self._initialise(binaries, program.major, user)
        settings = {"unix_socket_directories": "", "max_connections": "200", **self._settings}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [binaries / "postgres", "-D", data, "-h", LOOPBACK, "-p", str(self.state.port), *options]
        return start_server_process(command, self.log_path, cwd="/", **user)

    def _initialise(self, binaries: Path, major: int, user: dict[str, Any]) -> None:
        fresh = self.data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        locale = ["--locale=C"]
        if major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        reader, writer = os.pipe()
        try:
            if user:
                for path in (fresh, reader):
                    os.chown(path, user["user"], user["group"])
            os.write(writer, f"{self.state.password}\n".encode())
            os.close(writer)
            options = ["-U", NAME, "-E", "UTF8", "--auth=scram-sha-256", f"--pwfile=/dev/fd/{reader}", *locale]
            result = subprocess.run(
                [binaries / "initdb", "-D", fresh, *options],
                pass_fds=[reader],
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**server_environment(os.environ), "LC_ALL": "C"},
                **user,
            )
        finally:
            os.close(reader)
        if result.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise StorageError(f"PostgreSQL could not create its data folder {self.data}: {reason}")
        fresh.rename(self.data)

    def _prepare(self) -> None:
        with self._connect("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone():
                connection.execute(f"CREATE DATABASE {NAME}")
