"""Runs the local stack for `tidal up`: PostgreSQL, Valkey, migrations, api, worker, health, generator and Flower.

One loop in one thread reads the output of the child processes and restarts processes that have ended. On SIGINT or
SIGTERM it stops all processes within TIDAL_STOP_BUDGET_SECONDS, PostgreSQL and Valkey last; a second signal kills them
at once. If the supervisor itself is killed, the kernel kills its children, but the two servers keep running and the
next supervisor uses them. A stack runs on one machine only.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
from rich.console import Console

from common.child.launch import describe_exit
from common.config import Settings
from common.config.private_files import apply_umask, close_folder
from common.errors import ConflictError, StorageError, UnavailableError
from services.local import stack
from services.local.child import Child, ChildSpec
from services.local.log_sink import LogSink
from services.local.server_files import make_folder, stack_lock, write_private
from services.local.servers import EmbeddedServer, PostgresServer, ValkeyServer
from services.local.signal_wakeup import SignalWakeup
from tidal_client.local_instance import STATE_FILE, LocalInstance, ProcessState

READY_SECONDS = 120.0
"""Longest time in seconds until the api must answer. It is long enough for a slow disk."""
EARLY_ENDS = 3
"""Number of times that the api may end before its first answer; then the start of the stack fails."""
WATCH_SECONDS = 1.0
"""Seconds between two checks whether the servers run.

Polling is necessary, because they may be children of another process.
"""
NAME = "tidal"
MIGRATE = ("-m", "services.local", "migrate")
Plan = Callable[[Settings, stack.Addresses, stack.StackSecrets, stack.ServerUrls, Mapping[str, str]], list[ChildSpec]]
"""A function that returns the processes to run in addition to the two servers.

Tests pass a function that returns small programs.
"""


class StackSupervisor:
    """Runs the local stack in `folder`.

    `port` and `flower_port` are passed to `stack.choose_addresses`. If `parent`, a process id, is given, the stack
    stops when that process is no longer the parent of this one.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        port: int | None = None,
        flower_port: int | None = None,
        console: Console | None = None,
        parent: int | None = None,
        plan: Plan = stack.processes,
        migrate: tuple[str, ...] = MIGRATE,
    ) -> None:
        self.folder = folder.absolute()
        self.settings = settings
        self._ports = (port, flower_port)
        self._parent = parent
        self._plan = plan
        self._migrate_arguments = migrate
        apply_umask(settings)
        self._sink = LogSink(self.folder / "logs", console)
        self._children: list[Child] = []
        self._servers: dict[str, EmbeddedServer] = {}
        self._instance: LocalInstance | None = None
        self._stop_signals = 0
        self._watch_at = 0.0

    def run(self) -> int:
        """Start the stack, run it until a stop signal arrives, and stop it. Return the exit status of the process.

        If the start fails, stop all processes and raise TidalError.
        """
        with stack_lock(self.folder), SignalWakeup(self._on_signal) as wakeup:
            self._wakeup = wakeup
            failed = True
            try:
                self._start()
                self._serve()
                failed = False
            finally:
                self._stop_all(at_once=failed)
        return 0

    def _log(self, line: str) -> None:
        """Write a line of the supervisor itself to its log file and the terminal."""
        self._sink.write(NAME, line)

    def _on_signal(self) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            self._log(
                f"stopping, which takes at most {self.settings.stop_budget_seconds:g} s; "
                "another signal kills all processes at once"
            )
        for child in self._children:
            child.stop(at_once=self._stop_signals > 1)

    def _start(self) -> None:
        settings, folder = self.settings, self.folder
        addresses = stack.choose_addresses(settings, *self._ports)
        stack_secrets = stack.load_secrets(folder, settings)
        database_url = self._server("postgres", "database_url", PostgresServer(folder / "postgres"))
        redis_url = self._server("valkey", "redis_url", ValkeyServer(folder / "valkey"))
        servers = stack.ServerUrls(database_url, redis_url)
        environment = stack.base_environment(folder, settings, addresses)
        for key in ("TIDAL_EXPERIMENTS_DIR", "TIDAL_DATA_DIR"):
            make_folder(Path(environment[key]))
        self._close_folders()
        self._instance = LocalInstance(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            status="starting",
            folder=str(folder),
            api_url=addresses.api_url,
            token=stack_secrets.token,
            flower_url=addresses.flower_url,
            flower_password=stack_secrets.flower_password,
            database_url=database_url,
            redis_url=redis_url,
            experiments_dir=environment["TIDAL_EXPERIMENTS_DIR"],
            data_dir=environment["TIDAL_DATA_DIR"],
            logs_dir=str(folder / "logs"),
        )
        self._write_state()
        self._migrate(stack.with_database(environment, servers))
        if self._stop_signals:
            return
        self._children = [Child(spec) for spec in self._plan(settings, addresses, stack_secrets, servers, environment)]
        self._wait_until_ready()

    def _close_folders(self) -> None:
        """Make the stack's folders inaccessible to other users, because earlier versions created them readable.

        Folders that a setting such as TIDAL_DATA_DIR names are not changed.
        """
        folders = [self.folder, *(self.folder / name for name in ("logs", "experiments", "data", "postgres", "valkey"))]
        umask = int(self.settings.umask, 8)
        if sum(close_folder(folder, umask) for folder in folders):
            self._log(f"{self.folder} is no longer readable by other users (TIDAL_UMASK is {self.settings.umask})")

    def _server(self, name: str, setting: str, server: EmbeddedServer) -> str:
        """Return the URL of a server.

        If the environment or `.env` sets `setting` to a URL, return that URL. Otherwise start the embedded server
        `server` and return its URL.
        """
        if setting in self.settings.model_fields_set:
            self._log(f"{server.name}: using the server in TIDAL_{setting.upper()}")
            return str(getattr(self.settings, setting).get_secret_value())
        server.start()
        self._servers[name] = server
        if server.aside is not None:
            self._log(f"{server.name}: the data of an earlier, deleted {self.folder} was moved to {server.aside}")
        self._log(f"{server.name} {'already runs' if server.reused else 'started'} on port {server.port}")
        return server.url

    def _migrate(self, environment: dict[str, str]) -> None:
        migrate = Child(ChildSpec("migrate", self._migrate_arguments, environment))
        self._children = [migrate]
        migrate.start()
        while migrate.running:
            self._wait(1.0)
            for line in migrate.read_lines():
                self._sink.write("migrate", line)
            if ended := migrate.collect():
                for line in ended[1]:
                    self._sink.write("migrate", line)
                if ended[0] != 0 and not self._stop_signals:
                    reason = (self._sink.last_lines("migrate", 1) or ["no message"])[0]
                    raise UnavailableError(f"the database could not be migrated ({describe_exit(ended[0])}): {reason}")

    def _wait_until_ready(self) -> None:
        assert self._instance is not None
        started = time.monotonic()
        while not self._stop_signals:
            self._step()
            if _is_responding(f"{self._instance.api_url}/readyz"):
                self._instance.status = "ready"
                self._write_state()
                seconds = time.time() - self._instance.started
                self._log(f"ready: {self._instance.api_url}/docs ({seconds:.1f} s after the start)")
                return
            api = self._children[0]
            if api.restarts >= EARLY_ENDS or time.monotonic() - started > READY_SECONDS:
                lines = "\n  ".join(self._sink.last_lines("api"))
                raise UnavailableError(f"the api did not start; its log ends with:\n  {lines}")
            self._wait(0.1)

    def _serve(self) -> None:
        while not self._stop_signals:
            self._step()
            due = [child.start_at for child in self._children if child.start_at is not None]
            now = time.monotonic()
            self._wait(max(0.0, min([*due, self._watch_at]) - now))

    def _wait(self, seconds: float) -> None:
        outputs = [child.output for child in self._children if child.output is not None]
        self._wakeup.wait(outputs, seconds)

    def _step(self) -> None:
        """Start children whose time has come, log their output, handle their ends, and check the servers."""
        changed = False
        self._sink.tick()
        ready = self._instance is not None and self._instance.status == "ready"
        for child in self._children:
            due = child.start_at is not None and child.start_at <= time.monotonic()
            if due and (ready or not child.spec.after_ready) and not self._stop_signals:
                child.start()
                changed = True
            for line in child.read_lines():
                self._sink.write(child.spec.name, line)
            if ended := child.collect():
                changed = True
                status, lines = ended
                for line in lines:
                    self._sink.write(child.spec.name, line)
                if not self._stop_signals:
                    delay = child.plan_restart()
                    self._log(f"{child.spec.name} ended ({describe_exit(status)}); starting it again in {delay:g} s")
        if self._parent is not None and os.getppid() != self._parent and not self._stop_signals:
            self._on_signal()
        if time.monotonic() >= self._watch_at and not self._stop_signals:
            changed |= self._revive_servers()
            self._watch_at = time.monotonic() + WATCH_SECONDS
        if changed:
            self._update_state()

    def _revive_servers(self) -> bool:
        revived = False
        for server in self._servers.values():
            if server.pid is None:
                self._log(f"{server.name} has ended; starting it again")
                try:
                    server.start()
                    self._log(f"{server.name} runs again on port {server.port}")
                    revived = True
                except (UnavailableError, ConflictError, StorageError) as error:
                    self._log(f"{server.name} does not start: {error.message}")
        return revived

    def _stop_all(self, *, at_once: bool) -> None:
        self._stop_signals = self._stop_signals or 1
        try:
            if self._instance is not None:
                self._instance.status = "stopping"
                self._update_state()
            for child in self._children:
                child.stop(at_once=at_once or self._stop_signals > 1)
            while any(child.running for child in self._children):
                self._wait(0.1)
                for child in self._children:
                    if child.enforce():
                        self._log(f"{child.spec.name} did not end in {child.spec.stop_seconds:g} s and was killed")
                self._step()
        finally:
            with ExitStack() as stops:  # runs all callbacks even if one of them fails
                stops.callback(self._sink.close)
                stops.callback(self._log, "everything has stopped")
                stops.callback((self.folder / STATE_FILE).unlink, missing_ok=True)
                for server in self._servers.values():
                    stops.callback(server.stop, stack.SERVER_STOP_SECONDS / 2)

    def _update_state(self) -> None:
        """Write the state file. A failure is only logged, because the stack can run with an outdated file."""
        try:
            self._write_state()
        except StorageError as error:
            self._log(error.message)

    def _write_state(self) -> None:
        if self._instance is None:
            return
        states = {
            name: ProcessState(server.pid, server.port, "running" if server.pid else "restarting")
            for name, server in self._servers.items()
        }
        self._instance.processes = {**states, **{child.spec.name: child.state for child in self._children}}
        write_private(self.folder / STATE_FILE, self._instance.to_json())


def _is_responding(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
