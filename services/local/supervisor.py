"""`tidal up`: PostgreSQL, Valkey, migrations, api, worker, health, generator and Flower as one tree.

One thread and one loop: it reads the children's output, starts crashed ones again, and on SIGINT or SIGTERM stops
everything within TIDAL_STOP_BUDGET, the servers last; a second signal kills at once. A killed supervisor takes the
children with it (death signal), not the servers: the next one finds and uses them. Leaves out: more than one machine.
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
from services.local.server_files import make_folder, only_one, write_private
from services.local.servers import PostgresServer, Server, ValkeyServer
from services.local.wakeup import Wakeup
from tidal_client.local_instance import STATE_FILE, LocalInstance, ProcessState

READY_SECONDS = 120.0
"""Longest wait for the api, generous enough for a slow disk."""
EARLY_ENDS = 3
"""Number of early exits after which the supervisor gives up on an api that has never answered."""
WATCH_SECONDS = 1.0
"""Seconds between two checks of the servers, which may be children of another process."""
NAME = "tidal"
MIGRATE = ("-m", "services.local", "migrate")
Plan = Callable[[Settings, stack.Addresses, stack.Secrets, stack.Servers, Mapping[str, str]], list[ChildSpec]]
"""Returns the processes to run beside the servers; tests replace the services with small programs."""


class Supervisor:
    """One running stack. `run()` returns the exit status of the process.

    `port` and `flower_port` as in `stack.choose_addresses`; with `parent`, a process id, it stops when that is no
    longer its parent.
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
        self._servers: dict[str, Server] = {}
        self._instance: LocalInstance | None = None
        self._stops = 0
        self._watch_at = 0.0

    def run(self) -> int:
        """Start, serve until a signal, stop. Raises TidalError when the start fails; then nothing is left running."""
        with only_one(self.folder), Wakeup(self._on_signal) as wakeup:
            self._wakeup = wakeup
            failed = True
            try:
                self._start()
                self._serve()
                failed = False
            finally:
                self._stop_all(at_once=failed)
        return 0

    def say(self, line: str) -> None:
        """Log a line of the supervisor."""
        self._sink.write(NAME, line)

    def _on_signal(self) -> None:
        self._stops += 1
        if self._stops == 1:
            self.say(f"stopping, at most {self.settings.stop_budget_seconds:g} s; once more kills at once")
        for child in self._children:
            child.stop(at_once=self._stops > 1)

    def _start(self) -> None:
        settings, folder = self.settings, self.folder
        addresses = stack.choose_addresses(settings, *self._ports)
        kept = stack.load_secrets(folder, settings)
        database_url = self._server("postgres", "database_url", PostgresServer(folder / "postgres"))
        redis_url = self._server("valkey", "redis_url", ValkeyServer(folder / "valkey"))
        servers = stack.Servers(database_url, redis_url)
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
            token=kept.token,
            flower_url=addresses.flower_url,
            flower_password=kept.flower_password,
            database_url=database_url,
            redis_url=redis_url,
            experiments_dir=environment["TIDAL_EXPERIMENTS_DIR"],
            data_dir=environment["TIDAL_DATA_DIR"],
            logs_dir=str(folder / "logs"),
        )
        self._write_state()
        self._migrate(stack.with_database(environment, servers))
        if self._stops:
            return
        self._children = [Child(spec) for spec in self._plan(settings, addresses, kept, servers, environment)]
        self._wait_until_ready()

    def _close_folders(self) -> None:
        """Remove the access of other users to the stack's own folders, which earlier versions left open.

        Folders that a setting puts elsewhere are not changed.
        """
        ours = [self.folder, *(self.folder / name for name in ("logs", "experiments", "data", "postgres", "valkey"))]
        umask = int(self.settings.umask, 8)
        if sum(close_folder(folder, umask) for folder in ours):
            self.say(f"{self.folder} is now closed to other users of this machine (TIDAL_UMASK {self.settings.umask})")

    def _server(self, name: str, setting: str, server: Server) -> str:
        """Return the URL of a server: the one that is set, else that of the embedded server, started if necessary."""
        if setting in self.settings.model_fields_set:
            self.say(f"{server.name}: the one of TIDAL_{setting.upper()}")
            return str(getattr(self.settings, setting).get_secret_value())
        server.start()
        self._servers[name] = server
        if server.aside is not None:
            self.say(f"{server.name}: data of a deleted folder of this path was put aside in {server.aside}")
        self.say(f"{server.name} {'found running' if server.reused else 'started'} on port {server.port}")
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
                if ended[0] != 0 and not self._stops:
                    reason = (self._sink.last_lines("migrate", 1) or ["no message"])[0]
                    raise UnavailableError(f"the database could not be migrated ({describe_exit(ended[0])}): {reason}")

    def _wait_until_ready(self) -> None:
        assert self._instance is not None
        started = time.monotonic()
        while not self._stops:
            self._step()
            if _answers(f"{self._instance.api_url}/readyz"):
                self._instance.status = "ready"
                self._write_state()
                seconds = time.time() - self._instance.started
                self.say(f"ready: {self._instance.api_url}/docs ({seconds:.1f} s after the start)")
                return
            api = self._children[0]
            if api.restarts >= EARLY_ENDS or time.monotonic() - started > READY_SECONDS:
                lines = "\n  ".join(self._sink.last_lines("api"))
                raise UnavailableError(f"the api did not come up; its log ends with:\n  {lines}")
            self._wait(0.1)

    def _serve(self) -> None:
        while not self._stops:
            self._step()
            due = [child.start_at for child in self._children if child.start_at is not None]
            now = time.monotonic()
            self._wait(max(0.0, min([*due, self._watch_at]) - now))

    def _wait(self, seconds: float) -> None:
        outputs = [child.output for child in self._children if child.output is not None]
        self._wakeup.wait(outputs, seconds)

    def _step(self) -> None:
        """Start children that are due, forward output, handle children that have ended, and check the servers."""
        changed = False
        self._sink.tick()
        ready = self._instance is not None and self._instance.status == "ready"
        for child in self._children:
            due = child.start_at is not None and child.start_at <= time.monotonic()
            if due and (ready or not child.spec.after_ready) and not self._stops:
                child.start()
                changed = True
            for line in child.read_lines():
                self._sink.write(child.spec.name, line)
            if ended := child.collect():
                changed = True
                status, lines = ended
                for line in lines:
                    self._sink.write(child.spec.name, line)
                if not self._stops:
                    delay = child.plan_restart()
                    self.say(f"{child.spec.name} ended ({describe_exit(status)}); starting it again in {delay:g} s")
        if self._parent is not None and os.getppid() != self._parent and not self._stops:
            self._on_signal()
        if time.monotonic() >= self._watch_at and not self._stops:
            changed |= self._revive_servers()
            self._watch_at = time.monotonic() + WATCH_SECONDS
        if changed:
            self._update_state()

    def _revive_servers(self) -> bool:
        revived = False
        for server in self._servers.values():
            if server.pid is None:
                self.say(f"{server.name} is gone; starting it again")
                try:
                    server.start()
                    self.say(f"{server.name} is back on port {server.port}")
                    revived = True
                except (UnavailableError, ConflictError, StorageError) as error:
                    self.say(f"{server.name} does not start: {error.message}")
        return revived

    def _stop_all(self, *, at_once: bool) -> None:
        self._stops = self._stops or 1
        try:
            if self._instance is not None:
                self._instance.status = "stopping"
                self._update_state()
            for child in self._children:
                child.stop(at_once=at_once or self._stops > 1)
            while any(child.running for child in self._children):
                self._wait(0.1)
                for child in self._children:
                    if child.enforce():
                        self.say(f"{child.spec.name} did not end in {child.spec.stop_seconds:g} s and was killed")
                self._step()
        finally:
            with ExitStack() as stops:  # each of them, whatever becomes of the others
                stops.callback(self._sink.close)
                stops.callback(self.say, "everything has stopped")
                stops.callback((self.folder / STATE_FILE).unlink, missing_ok=True)
                for server in self._servers.values():
                    stops.callback(server.stop, stack.SERVER_STOP_SECONDS / 2)

    def _update_state(self) -> None:
        """The state file, if the disk takes it: a stale one is no reason to stop, or not to stop, anything."""
        try:
            self._write_state()
        except StorageError as error:
            self.say(error.message)

    def _write_state(self) -> None:
        if self._instance is None:
            return
        states = {
            name: ProcessState(server.pid, server.port, "running" if server.pid else "restarting")
            for name, server in self._servers.items()
        }
        self._instance.processes = {**states, **{child.spec.name: child.state for child in self._children}}
        write_private(self.folder / STATE_FILE, self._instance.to_json())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
