"""SQL that several statements about jobs share: expressions for points in time, and advisory locks.

The age of a lease is computed with the database's `now()`, never with the clock of a worker. `now()` is the start of
the transaction. So a transaction that had to wait for a lock grants a slightly shorter lease, and treats the leases of
others as slightly younger than they are; both are safe. Each lock has one purpose and one key. It ends with the
transaction, so that locks also work behind a connection pooler.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Interval, func, literal, select
from sqlalchemy.orm import Session

MAINTENANCE: Final = 7_310_002
RELAY: Final = 7_310_003
_TYPE: Final = 7_310_004
_IDEMPOTENCY: Final = 7_310_005
_DATASET: Final = 7_310_006
_WAITING: Final = 7_310_007


def seconds(amount: float) -> ColumnElement[Any]:
    """Return an interval of `amount` seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(amount), type_=Interval)


def now_plus(amount: float) -> ColumnElement[datetime]:
    """Return the time `amount` seconds after `now()`."""
    return func.now() + seconds(amount)


def now_minus(amount: float) -> ColumnElement[datetime]:
    """Return the time `amount` seconds before `now()`."""
    return func.now() - seconds(amount)


def try_lock(session: Session, key: int) -> bool:
    """Take the lock `key` for this transaction if the lock is free; return whether it was taken."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def idle_transaction_limit(seconds: float) -> ColumnElement[str]:
    """Return an expression that sets the longest idle time of the transaction; select it together with a lock.

    PostgreSQL ends a transaction that is idle for longer and so releases its lock. Otherwise a suspended process (a
    sleeping machine, a paused container) would keep the lock.
    """
    return func.set_config("idle_in_transaction_session_timeout", f"{round(seconds * 1000)}ms", True)


def wait_lock(session: Session, key: int) -> None:
    """Take the lock `key` for this transaction; wait at most for PostgreSQL's `lock_timeout`."""
    session.execute(select(func.pg_advisory_xact_lock(key)))


def lock_type(session: Session, job_type: str) -> None:
    """Lock the claims of one job type, so that only one transaction at a time claims a job of this type."""
    session.execute(select(func.pg_advisory_xact_lock(_TYPE, func.hashtext(job_type))))


def lock_idempotency_key(session: Session, key: str) -> None:
    """Lock an Idempotency-Key, so that submissions with the same key run one after another."""
    session.execute(select(func.pg_advisory_xact_lock(_IDEMPOTENCY, func.hashtext(key))))


def lock_waiting(session: Session) -> None:
    """Lock submissions, so that they run one after another while the number of waiting jobs is near its limit."""
    wait_lock(session, _WAITING)


def lock_dataset(session: Session, name: str, *, shared: bool) -> None:
    """Lock a dataset. Submissions that name it take the lock `shared`; its deletion waits until they are committed."""
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    session.execute(select(lock(_DATASET, func.hashtext(name))))
