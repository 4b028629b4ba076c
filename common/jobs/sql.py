"""Pieces of SQL that several statements about jobs share: durations, and the advisory locks.

Leases are judged by the database's `now()`, never by the clock of a worker. `now()` is the start of the transaction: a
transaction that waited for a lock grants a slightly shorter lease and sees a slightly younger one, both on the safe
side. Each lock has one purpose and one key, and ends with the transaction, which is safe behind a pooler.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Interval, func, literal, select
from sqlalchemy.orm import Session

SWEEP: Final = 7_310_002
RELAY: Final = 7_310_003
_TYPE: Final = 7_310_004
_IDEMPOTENCY: Final = 7_310_005
_DATASET: Final = 7_310_006
_WAITING: Final = 7_310_007


def seconds(amount: float) -> ColumnElement[Any]:
    """An interval of `amount` seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(amount), type_=Interval)


def now_plus(amount: float) -> ColumnElement[datetime]:
    """`now()` and `amount` seconds."""
    return func.now() + seconds(amount)


def now_minus(amount: float) -> ColumnElement[datetime]:
    """`now()` less `amount` seconds."""
    return func.now() - seconds(amount)


def try_lock(session: Session, key: int) -> bool:
    """Take `key` for this transaction if it is free."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def standstill_limit(seconds: float) -> ColumnElement[str]:
    """Selected beside the lock: whoever stands still longer inside this transaction loses it, and the lock with it.

    Otherwise a process frozen at the wrong moment (a suspended machine, a paused container) keeps all others out.
    """
    return func.set_config("idle_in_transaction_session_timeout", f"{round(seconds * 1000)}ms", True)


def wait_lock(session: Session, key: int) -> None:
    """Take `key` for this transaction, waiting as long as lock_timeout allows."""
    session.execute(select(func.pg_advisory_xact_lock(key)))


def lock_type(session: Session, job_type: str) -> None:
    """Serialise the claims of one job type."""
    session.execute(select(func.pg_advisory_xact_lock(_TYPE, func.hashtext(job_type))))


def lock_idempotency_key(session: Session, key: str) -> None:
    """Serialise submissions with one Idempotency-Key."""
    session.execute(select(func.pg_advisory_xact_lock(_IDEMPOTENCY, func.hashtext(key))))


def lock_waiting(session: Session) -> None:
    """Serialise submissions while the number of waiting jobs is near its limit."""
    wait_lock(session, _WAITING)


def lock_dataset(session: Session, name: str, *, shared: bool) -> None:
    """Submissions that name a dataset share it; its deletion waits until they are in the table."""
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    session.execute(select(lock(_DATASET, func.hashtext(name))))
