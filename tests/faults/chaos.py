"""Injects random faults into running processes; a seed selects the faults.

`tests.faults.soak` uses it. Each kind of fault is one method. For a fault that lasts (a suspended worker, a partition,
a server that is down), the method also schedules its end. Every fault is written to the log with its time and target.
The jobs are submitted and checked in `tests.faults.soak`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from common.db import Job
from common.errors import ConflictError, UnavailableError
from common.redis.publisher import RedisPublisher
from services.local.servers import PostgresServer, ValkeyServer
from tests.faults.fault_workers import FaultWorkers
from tests.faults.proxy import TcpProxy

WORKERS = ("worker-1", "worker-2", "worker-3")
BEHIND_PROXY = "worker-1"
SIGNALS = ("pause", "resume", "resume", "complete", "stop", "cancel")
LIVE = ("pending", "provisioning", "starting", "running", "completing", "stopping", "paused", "stale")


class Chaos:
    """Injects random faults.

    Call `strike` to inject one fault, `tick` frequently to end lasting faults, and `heal` to end all of them.
    """

    def __init__(
        self,
        workers: FaultWorkers,
        postgres: PostgresServer,
        valkey: ValkeyServer,
        proxy: TcpProxy,
        rng: random.Random,
        log: Path,
    ) -> None:
        self._workers, self._postgres, self._valkey, self._proxy, self._rng = workers, postgres, valkey, proxy, rng
        self._log = log
        self._began = time.monotonic()
        self._later: list[tuple[float, str, Callable[[], None]]] = []
        self._publisher = RedisPublisher(workers.settings.redis_url, timeout=2.0)
        self._leaving = 0
        self.counts: Counter[str] = Counter()
        """{kind of fault: number of injected faults}."""
        self._faults: dict[str, tuple[int, Callable[[], str | None]]] = {
            "worker killed": (4, self._kill_worker),
            "trainer killed": (5, self._kill_trainer),
            "worker drained": (3, self._drain_worker),
            "worker stopped for a while": (4, self._stop_worker),
            "worker partitioned": (4, self._partition),
            "Redis emptied": (2, self._flush),
            "Redis killed": (2, self._kill_valkey),
            "backends terminated": (3, self._terminate_backends),
            "Postgres restarted": (1, self._restart_postgres),
            "health killed": (2, self._kill_health),
            "second health": (1, self._second_health),
            "notifications repeated": (2, self._repeat_notifications),
            "signal sent": (8, self._signal),
        }

    def start_workers(self) -> None:
        """Start all workers. One of them connects to PostgreSQL through the proxy."""
        for name in WORKERS:
            self._start(name)

    def strike(self) -> None:
        """Inject one random fault. It is not counted if it has no target at the moment."""
        names = list(self._faults)
        [name] = self._rng.choices(names, [self._faults[name][0] for name in names])
        target = self._faults[name][1]()
        if target is not None:
            self.counts[name] += 1
            self._write(name, target)

    def tick(self) -> None:
        """End the lasting faults whose time is over, and forget processes that have exited."""
        now = time.monotonic()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            self._write("healed", entry[1])
            entry[2]()
        for name in [name for name in self._workers.processes if "leaving" in name]:
            if self._workers.processes[name].poll() is not None:
                del self._workers.processes[name]

    def heal(self) -> None:
        """End all lasting faults, and start all workers, servers and health processes that are not running."""
        for _, what, end in sorted(self._later, key=lambda entry: entry[0]):
            self._write("healed", what)
            end()
        self._later.clear()
        self._proxy.heal()
        self._postgres.start()
        self._valkey.start()
        for name in (*WORKERS, "health"):
            if not self._workers.runs(name):
                self._start(name)

    def close(self) -> None:
        """Close the connection to Redis."""
        self._publisher.close()

    def _start(self, name: str) -> None:
        if name == "health":
            self._workers.start("health", "services.health")
        elif name == BEHIND_PROXY:
            self._workers.worker(name, TIDAL_DATABASE_URL=self._proxy.url)
        else:
            self._workers.worker(name)

    def _after(self, seconds: float, what: str, end: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, what, end))

    def _lasting(self, what: str) -> bool:
        return any(entry[1] == what for entry in self._later)

    def _write(self, name: str, target: str) -> None:
        line = {"at": round(time.monotonic() - self._began, 3), "fault": name, "target": target}
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _worker(self) -> str:
        return self._rng.choice(WORKERS)

    def _kill_worker(self) -> str:
        name = self._worker()
        self._workers.kill(name)
        self._start(name)
        return name

    def _kill_trainer(self) -> str | None:
        trainers = [trainer for name in WORKERS for trainer in self._workers.trainers(name)]
        if not trainers:
            return None
        trainer = self._rng.choice(trainers)
        with contextlib.suppress(psutil.NoSuchProcess):
            trainer.kill()
        return str(trainer.pid)

    def _drain_worker(self) -> str | None:
        name = self._worker()
        if self._lasting(name):
            return None
        process = self._workers.processes.pop(name)
        process.terminate()
        self._leaving += 1
        self._workers.processes[f"{name}-leaving-{self._leaving}"] = process
        self._start(name)
        return name

    def _stop_worker(self) -> str | None:
        name = self._worker()
        if self._lasting(name):
            return None
        process = self._workers.processes[name]
        seconds = self._rng.uniform(0.1, 2.0) * self._workers.timers.after_lease
        process.send_signal(signal.SIGSTOP)

        def resume() -> None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)

        self._after(seconds, name, resume)
        return f"{name} for {seconds:.1f} s"

    def _partition(self) -> str | None:
        if self._lasting("proxy"):
            return None
        seconds = self._rng.uniform(0.1, 2.0) * self._workers.timers.after_lease
        how = self._rng.choice(["cut", "silence"])
        (self._proxy.cut if how == "cut" else self._proxy.silence)()
        self._after(seconds, "proxy", self._proxy.heal)
        return f"{BEHIND_PROXY} {how} for {seconds:.1f} s"

    def _flush(self) -> str | None:
        try:
            with redis.Redis.from_url(self._valkey.url, socket_timeout=5, retry=None) as client:
                client.flushall()
        except redis.RedisError:
            return None
        return "all keys"

    def _kill_valkey(self) -> str | None:
        pid = self._valkey.pid
        if pid is None:
            return None
        os.kill(pid, signal.SIGKILL)
        seconds = self._rng.uniform(0.0, 0.5) * self._workers.timers.lease_seconds
        self._after(seconds, "valkey", self._valkey.start)
        return f"for {seconds:.1f} s"

    def _terminate_backends(self) -> str | None:
        try:
            with self._workers.sessions.begin() as session:
                ended = session.scalars(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                ).all()
        except SQLAlchemyError:
            return None
        return f"{len(ended)} connections"

    def _restart_postgres(self) -> str | None:
        pid = self._postgres.pid
        if pid is None:
            return None
        how = self._rng.choice(["stopped", "killed"])
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            self._postgres.stop()
        seconds = self._rng.uniform(0.0, 1.5) * self._workers.timers.lease_seconds
        self._after(seconds, "postgres", self._postgres.start)
        return f"{how} for {seconds:.1f} s"

    def _kill_health(self) -> str:
        self._workers.kill("health")
        self._start("health")
        return "health"

    def _second_health(self) -> str | None:
        if self._workers.runs("health-2"):
            return None
        self._workers.start("health-2", "services.health")
        seconds = self._rng.uniform(0.5, 2.0) * self._workers.timers.after_lease
        self._after(seconds, "health-2", lambda: self._workers.kill("health-2"))
        return f"for {seconds:.1f} s"

    def _repeat_notifications(self) -> str | None:
        try:
            for _ in range(20):
                self._publisher.notify_worker("training")
        except UnavailableError:
            return None
        return "20 notifications"

    def _signal(self) -> str | None:
        name = self._rng.choice(SIGNALS)
        status = "paused" if name == "resume" else "running" if self._rng.random() < 0.7 else None
        job_id = self._some_job((status,) if status else LIVE)
        if job_id is None:
            return None
        try:
            send: Any = self._workers.cancel if name == "cancel" else lambda job: self._workers.signal(job, name)
            send(job_id)
        except (ConflictError, SQLAlchemyError):
            return None
        return f"{name} to {job_id}"

    def _some_job(self, statuses: tuple[str, ...]) -> str | None:
        try:
            with self._workers.sessions() as session:
                jobs = session.scalars(select(Job.id).where(Job.status.in_(statuses)).order_by(Job.id)).all()
        except SQLAlchemyError:
            return None
        return self._rng.choice(jobs) if jobs else None
