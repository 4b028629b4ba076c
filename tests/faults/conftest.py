"""Fixtures of the fault tests (seed, timers, processes), and a summary of the 31 faults at the end of the run.

The specification lists 31 faults; the name of a test contains the numbers of the faults that it injects.
`--fault-seed N` (or SEED=N) sets the seed of the random numbers. `--full` (or FULL=1) selects the timers of production
instead of the shortened ones.
"""

from __future__ import annotations

import os
import random
import re
import sys
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.faults.fault_workers import FaultWorkers
from tests.faults.timers import REAL, SHORT, Timers
from tests.integration.conftest import (
    database_template,
    database_url,
    databases,
    empty_database_url,
    engine,
    postgres,
    redis_client,
    redis_url,
    sessions,
    settings,
    valkey,
)
from tests.integration.jobs.job_queue import JobQueue

__all__ = [
    "database_template",
    "database_url",
    "databases",
    "empty_database_url",
    "engine",
    "postgres",
    "redis_client",
    "redis_url",
    "sessions",
    "settings",
    "valkey",
]

FAULTS = 31
PASSED = pytest.StashKey[bool]()
NUMBERS = re.compile(r"::test_fault((?:_\d\d)+)_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-seed",
        type=int,
        default=int(os.environ.get("SEED") or 0),
        help="seed for the random numbers of the fault tests",
    )
    parser.addoption(
        "--full",
        action="store_true",
        default=os.environ.get("FULL") == "1",
        help="use the timers of production instead of shortened ones",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder as `fault`.

    With `-m "core_fault or not fault"`, pytest runs only the core tests here.
    """
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("fault")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many faults were injected and survived.

    A fault counts as survived if all tests of this fault have passed.
    """
    stats = terminalreporter.stats
    passed = _numbers(report.nodeid for report in stats.get("passed", []) if report.when == "call")
    broken = _numbers(report.nodeid for kind in ("failed", "error") for report in stats.get(kind, []))
    bugs = [report.nodeid for report in stats.get("passed", []) if "::test_seeded_bug_" in report.nodeid]
    unfound = [report.nodeid for report in stats.get("failed", []) if "::test_seeded_bug_" in report.nodeid]
    if bugs or unfound:
        found = sum(report.when == "call" for report in stats.get("passed", []) if report.nodeid in bugs)
        terminalreporter.write_line(f"seeded bugs: {found} / {found + len(unfound)} found by the checker")
    if passed or broken:
        seed = config.getoption("--fault-seed")
        core = bool(config.getoption("markexpr"))  # `make test` selects only the core faults.
        wanted = passed | broken if core else set(range(1, FAULTS + 1))
        missing = sorted(wanted - (passed - broken))
        left = f"; not passed or not run: {missing}" if missing else ""
        what = "core faults" if core else "faults"
        terminalreporter.write_line(f"{what}: {len(passed - broken)} / {len(wanted)} (seed {seed}){left}")


def _numbers(nodeids: Iterator[str]) -> set[int]:
    """Return the numbers of faults in the names of tests. The name `test_fault_13_14_…` contains two."""
    return {int(n) for nodeid in nodeids if (found := NUMBERS.search(nodeid)) for n in found[1].strip("_").split("_")}


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this test; it depends on the seed of the run and the test's name.

    pytest prints both seeds if the test fails.
    """
    chosen = int(request.config.getoption("--fault-seed"))
    own = zlib.crc32(f"{chosen} {request.node.name}".encode())
    sys.stdout.write(f"--fault-seed {chosen}: seed of this test {own}\n")
    return own


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Return the random number generator of this test."""
    return random.Random(seed)


@pytest.fixture
def timers(request: pytest.FixtureRequest) -> Timers:
    """Return the timers of this run. The deadlines of the tests are computed from them."""
    return REAL if request.config.getoption("--full") else SHORT


@pytest.fixture
def job_queue(sessions: sessionmaker[Session], settings: Settings) -> JobQueue:
    """Return a helper with which a test changes the status of jobs from this process, without a worker or an api."""
    return JobQueue(sessions, settings)


@pytest.fixture
def workers(
    settings: Settings,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    timers: Timers,
    seed: int,
    request: pytest.FixtureRequest,
) -> Iterator[FaultWorkers]:
    """Run the health process, and let the test start other processes.

    After the test, wait until all jobs have ended, and check what they recorded (`tests.faults.checker`).
    """
    with FaultWorkers(settings, sessions, tmp_path, timers) as workers:
        yield workers
        passed = request.node.stash.get(PASSED, False)
        if passed and workers.checked:
            workers.finish()
    if not passed:
        for log in sorted(tmp_path.glob("*.log")):
            sys.stdout.write(f"--- {log.name}\n{log.read_text()[-4000:]}\n")
    elif workers.checked:
        assert workers.violations() == []
