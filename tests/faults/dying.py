"""An api or health process that exits or stops at a chosen point: `python -m tests.faults.dying`.

DIES_AT selects the point. `before_commit`: the api has inserted a job and not committed the transaction.
`before_publish`: the api has committed the transaction and published nothing. `in_reap`: the reaper has made its
changes and not committed them; it creates the file DIES_MARK and waits to be killed. `in_lock`: the reaper has the
advisory lock that lets only one reaper act at a time; it creates DIES_MARK and waits for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import text

import common.jobs.maintenance
import services.api.context
import services.api.operations.submission
from common.jobs.reaper import Reaped, reap
from common.jobs.sql import try_lock
from common.jobs.submission import enqueue_job
from services.api.__main__ import main as api
from services.api.publishing import OutboxThread
from services.health.__main__ import main as health


def die() -> None:
    """Exit at once without any cleanup, as after a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)


def submit_and_die(*arguments: Any, **named: Any) -> Any:
    """Insert the job and exit before the commit."""
    enqueue_job(*arguments, **named)
    die()


def reap_and_wait(*arguments: Any) -> Reaped:
    """Make the reaper's changes, and keep the transaction open until this process is killed."""
    reaped = reap(*arguments)
    if reaped != Reaped():
        # PostgreSQL must not end the transaction; only SIGKILL ends it.
        arguments[0].execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        wait_for_ever()
    return reaped


def lock_and_wait(*arguments: Any) -> bool:
    """Keep the advisory lock of the reaper and do nothing, like a process that hangs."""
    if try_lock(*arguments):
        wait_for_ever()
    return False


def wait_for_ever() -> None:
    """Create the file for which the test waits, then wait for ever."""
    Path(os.environ["DIES_MARK"]).touch()
    threading.Event().wait()


class Mute(OutboxThread):
    """A relay that ends the process instead of publishing, as soon as the api notifies the relay of a commit."""

    def wake(self) -> None:
        die()


def main() -> int:
    """Replace the function at the chosen point, then run the process."""
    at = os.environ["DIES_AT"]
    if at == "in_reap":
        vars(common.jobs.maintenance)["reap"] = reap_and_wait
        return health()
    if at == "in_lock":
        vars(common.jobs.maintenance)["try_lock"] = lock_and_wait
        return health()
    if at == "before_commit":
        vars(services.api.operations.submission)["enqueue_job"] = submit_and_die
    elif at == "before_publish":
        vars(services.api.context)["OutboxThread"] = Mute
    else:
        raise ValueError(f"DIES_AT={at!r} is not one of before_commit, before_publish, in_reap, in_lock")
    return api()


if __name__ == "__main__":
    sys.exit(main())
