"""The soak test: runs many jobs under random faults, with `python -m tests.faults.soak --jobs 200 --minutes 30`.

Jobs are submitted during the first three quarters of the time, and faults are injected during all of it. Then the
faults are ended, all jobs must end, and the checker checks their history. The seed and all faults are written to
`<folder>/faults.jsonl`. The exit status is 1 if a job was lost or ran twice, or after any other violation.
`test_31_soak.py` runs a short version. The faults are in `tests.faults.chaos`.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from common.config import Settings
from common.db import Job, make_engine, session_factory, upgrade
from services.local.servers import PostgresServer, ValkeyServer
from tests.faults.chaos import Chaos
from tests.faults.checker import check
from tests.faults.fault_workers import FaultWorkers
from tests.faults.proxy import TcpProxy
from tests.faults.timers import REAL, SHORT, Timers

CONCURRENCY = 3
DOUBLE = ("at the same time", "two executions", "terminal events", "begins twice")
"""A violation whose text contains one of these phrases means that a job ran or ended twice."""
LOST = ("lost, it was accepted", "not terminal")


@dataclass(frozen=True)
class Plan:
    """The parameters of a soak test.

    `seconds` is the time during which faults are injected; waiting for the jobs to end takes additional time.
    """

    jobs: int
    seconds: float
    seed: int
    timers: Timers
    fault_every: float
    """Mean time in seconds between two faults."""


@dataclass
class Report:
    """The result of a soak test."""

    seed: int
    jobs: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    steps: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    double: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.violations


def soak(plan: Plan, folder: Path, print_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Run the soak test in `folder` with its own servers.

    Once a second, `print_progress` is called with a line that contains the numbers of jobs and faults so far.
    """
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "faults.jsonl"
    log.write_text(json.dumps({"seed": plan.seed, "jobs": plan.jobs, "seconds": plan.seconds}) + "\n")
    postgres = PostgresServer(folder / "postgres", settings={"fsync": "off", "full_page_writes": "off"})
    valkey = ValkeyServer(folder / "valkey")
    try:
        postgres.start()
        valkey.start()
        upgrade(postgres.url)
        settings = Settings(
            _env_file=None,
            database_url=postgres.url,
            redis_url=valkey.url,
            experiments_dir=folder / "experiments",
            data_dir=folder / "data",
        )
        engine = make_engine(settings.database_url, pool_size=5)
        with TcpProxy.of_url(postgres.url) as proxy:
            workers = FaultWorkers(settings, session_factory(engine), folder, plan.timers)
            workers.concurrency(CONCURRENCY)
            with workers:
                rng = random.Random(plan.seed)
                chaos = Chaos(workers, postgres, valkey, proxy, rng, log)
                try:
                    _run(plan, workers, chaos, rng, print_progress)
                    history = workers.history()
                finally:
                    chaos.close()
        engine.dispose()
    finally:
        postgres.remove()
        valkey.remove()
    violations = check(history)
    surplus = len(history.jobs) - len(set(history.accepted))
    violations += [f"{surplus} jobs more than were submitted: a submission begins twice"] if surplus > 0 else []
    return Report(
        seed=plan.seed,
        jobs=len(set(history.accepted)),
        statuses=dict(Counter(job.status for job in history.jobs)),
        attempts=sum(job.attempt for job in history.jobs),
        steps=len(history.steps),
        faults=dict(chaos.counts.most_common()),
        lost=sum(any(words in line for words in LOST) for line in violations),
        double=sum(any(words in line for words in DOUBLE) for line in violations),
        violations=violations,
        seconds=round(time.monotonic() - began, 1),
    )


def _run(
    plan: Plan, workers: FaultWorkers, chaos: Chaos, rng: random.Random, print_progress: Callable[[str], None]
) -> None:
    chaos.start_workers()
    start = time.monotonic()
    submissions = sorted(rng.uniform(0.0, 0.75 * plan.seconds) for _ in range(plan.jobs))
    next_fault = rng.expovariate(1.0 / plan.fault_every)
    reported_at = 0.0
    while (now := time.monotonic() - start) < plan.seconds or len(workers.submitted) < plan.jobs:
        chaos.tick()
        if len(workers.submitted) < plan.jobs and submissions[len(workers.submitted)] <= now:
            _submit(workers, len(workers.submitted), rng)
        if next_fault <= now < plan.seconds:
            chaos.strike()
            next_fault = time.monotonic() - start + rng.expovariate(1.0 / plan.fault_every)
        if now - reported_at >= 1.0:
            reported_at = now
            print_progress(_line(plan, workers, chaos, now))
        time.sleep(0.05)  # polling interval
    chaos.heal()
    print_progress("healed; waiting until every job has ended")
    _end(plan, workers, chaos, rng)


def _submit(workers: FaultWorkers, number: int, rng: random.Random) -> None:
    """Submit one job. If no reply arrives, the loop calls this again with the same idempotency key."""
    # The seed depends on `number`, so that a repeated submission contains the same plan.
    plan_rng = random.Random(f"{workers.timers.scale} {number}")
    plan = {"steps": plan_rng.randint(20, 160), "step_seconds": 0.03, "every": plan_rng.choice([5, 10, 20])}
    plan |= {
        "completing_seconds": plan_rng.choice([0.0, 0.0, 0.5]),
        "begin_seconds": plan_rng.choice([0.0, 0.0, 0.0, 1.5]),
    }
    try:
        workers.submit(plan, idempotency_key=f"soak-{number}", priority=plan_rng.randint(-2, 2))
    except SQLAlchemyError:
        return


def _end(plan: Plan, workers: FaultWorkers, chaos: Chaos, rng: random.Random) -> None:
    """Bring all jobs to their end: resume paused jobs, cancel jobs that pause afterwards, and wait."""
    with workers.sessions() as session:
        paused = session.scalars(select(Job.id).where(Job.status == "paused")).all()
    for job_id in paused:
        workers.signal(job_id, "resume")
    deadline = time.monotonic() + 2 * plan.timers.patience + 3.0 * plan.jobs
    while time.monotonic() < deadline:
        chaos.tick()
        with workers.sessions() as session:
            left = dict(session.execute(select(Job.id, Job.status).where(Job.finished_at.is_(None))).all())
        for job_id, status in left.items():
            if status == "paused":  # This pause was requested before the faults were ended.
                workers.cancel(job_id)
        if not left:
            return
        time.sleep(0.2)
    # Raise no error here, because the checker reports jobs that have not ended.


def _line(plan: Plan, workers: FaultWorkers, chaos: Chaos, now: float) -> str:
    try:
        with workers.sessions() as session:
            counts = dict(session.execute(select(Job.status, func.count()).group_by(Job.status)).all())
    except SQLAlchemyError:
        return f"{now:4.0f} / {plan.seconds:.0f} s · Postgres is away"
    status_counts = " · ".join(f"{status} {count}" for status, count in sorted(counts.items()))
    submitted = f"{len(workers.submitted)} / {plan.jobs} jobs"
    return f"{now:4.0f} / {plan.seconds:.0f} s · {submitted} · faults {chaos.counts.total()} · {status_counts}"


def show(report: Report, console: Console) -> None:
    """Print the report as a table."""
    table = Table("what", "count", title=f"Soak, seed {report.seed}, {report.seconds:.0f} s")
    for name, count in {"jobs": report.jobs, **dict(sorted(report.statuses.items()))}.items():
        table.add_row(name, str(count))
    table.add_row("attempts", str(report.attempts))
    table.add_row("steps", str(report.steps), end_section=True)
    for name, count in report.faults.items():
        table.add_row(name, str(count))
    table.add_row("faults", str(sum(report.faults.values())), end_section=True)
    for name, count in {"lost": report.lost, "double": report.double, "violations": len(report.violations)}.items():
        table.add_row(name, str(count), style="bold red" if count else "bold")
    console.print(table)
    for violation in report.violations:
        console.print(violation, style="red", highlight=False)


def main() -> int:
    """Parse the command line, run the soak test and print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak", description="Run many jobs under random faults and check their history."
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="seed for the random numbers; by default a random one, which is printed"
    )
    parser.add_argument("--every", type=float, default=4.0, help="mean time in seconds between two faults")
    parser.add_argument("--full", action="store_true", help="use the timers of production instead of shortened ones")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="folder for data and logs, which is not deleted; default: a new temporary folder",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    chosen = parser.parse_args()
    seed = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    plan = Plan(chosen.jobs, 60.0 * chosen.minutes, seed, REAL if chosen.full else SHORT, chosen.every)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="tidal-soak-"))
    console = Console(stderr=True)
    console.print(f"seed {seed}; log {folder / 'faults.jsonl'}")
    # sys.exit makes `soak` clean up, which ends all processes that the soak test has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with console.status("starting") as status:
        report = soak(plan, folder, status.update if console.is_terminal else lambda line: None)
    if chosen.json:
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
    show(report, console)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
