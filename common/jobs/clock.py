"""Durations in SQL. Leases are judged by the database's `now()`, never by the clock of a worker.

`now()` is the start of the transaction: a transaction that waited for a lock grants a slightly shorter lease and
sees a slightly younger one, both on the safe side.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Interval, func, literal


def seconds(amount: float) -> ColumnElement[Any]:
    """An interval of `amount` seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(amount), type_=Interval)


def now_plus(amount: float) -> ColumnElement[datetime]:
    """`now()` and `amount` seconds."""
    return func.now() + seconds(amount)


def now_minus(amount: float) -> ColumnElement[datetime]:
    """`now()` less `amount` seconds."""
    return func.now() - seconds(amount)
