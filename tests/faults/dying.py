"""An api or a health process that dies at one named point: `python -m tests.faults.dying`.

DIES_AT: `before_commit` (the api has written a submission and not committed it), `before_publish` (it has committed
and told nobody), `in_reap` (the reaper has judged and not committed; it writes the file DIES_MARK and waits to be
killed), `in_lock` (the reaper has the sweeps' lock; it writes DIES_MARK and stands still for ever). Leaves out: faults
that need no exact point.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import text

import common.jobs.sweep
import services.api.context
import services.api.operations.submission
from common.jobs.reaper import Reaped, reap
from common.jobs.sql import try_lock
from common.jobs.submission import enqueue_job
from services.api.__main__ import main as api
from services.api.publishing import OutboxThread
from services.health.__main__ import main as health


def die() -> None:
    """Without a word, as in a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def submit_and_die(*arguments: Any, **named: Any) -> Any:
    """The rows are written; the commit never comes."""
    enqueue_job(*arguments, **named)
    die()


def reap_and_wait(*arguments: Any) -> Reaped:
    """Hold the transaction with its judgements open until somebody kills this process."""
    reaped = reap(*arguments)
    if reaped != Reaped():
        arguments[0].execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # only death shall end it
        stand_still()
    return reaped


def lock_and_wait(*arguments: Any) -> bool:
    """Stand still with the lock, as a frozen process does."""
    if try_lock(*arguments):
        stand_still()
    return False


def stand_still() -> None:
    """Tell the test, then do nothing any more."""
    Path(os.environ["DIES_MARK"]).touch()
    threading.Event().wait()


class Mute(OutboxThread):
    """Dies when it is told of a commit."""

    def wake(self) -> None:
        die()


def main() -> int:
    """Open the trap, then be the process."""
    at = os.environ["DIES_AT"]
    if at == "in_reap":
        vars(common.jobs.sweep)["reap"] = reap_and_wait
        return health()
    if at == "in_lock":
        vars(common.jobs.sweep)["try_lock"] = lock_and_wait
        return health()
    if at == "before_commit":
        vars(services.api.operations.submission)["enqueue_job"] = submit_and_die
    elif at == "before_publish":
        vars(services.api.context)["OutboxThread"] = Mute
    else:
        raise ValueError(f"DIES_AT={at!r} is no point to die at")
    return api()


if __name__ == "__main__":
    sys.exit(main())
