"""Shifts the wall clock of a Python process by TIDAL_TEST_CLOCK_SHIFT seconds, if this folder is in its PYTHONPATH.

Python imports `sitecustomize` before all other modules. Therefore `time.time`, `time.time_ns`, `datetime.now` and
similar functions are shifted in every module, without a system package. The monotonic clocks are not shifted, because a
wrong NTP server shifts only the wall clock. `clock_gettime` is not shifted either, because tests measure with it.
"""

from __future__ import annotations

import datetime as datetimes
import os
import time
from datetime import timedelta, tzinfo
from typing import Any, Final, Self

SHIFT: Final = float(os.environ.get("TIDAL_TEST_CLOCK_SHIFT", "0"))
true_time, true_time_ns = time.time, time.time_ns
true_localtime, true_gmtime, true_strftime = time.localtime, time.gmtime, time.strftime
true_datetime = datetimes.datetime


class _Kind(type):
    """Makes isinstance accept objects of the original `datetime`, because C code still creates such objects."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, true_datetime)


class ShiftedDatetime(true_datetime, metaclass=_Kind):
    """`datetime` whose methods for the current time return a shifted time."""

    __slots__ = ()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(seconds=SHIFT)

    @classmethod
    def utcnow(cls) -> Self:
        return super().now(datetimes.UTC).replace(tzinfo=None) + timedelta(seconds=SHIFT)

    @classmethod
    def today(cls) -> Self:
        return cls.now()


ShiftedDatetime.__name__ = ShiftedDatetime.__qualname__ = "datetime"
ShiftedDatetime.__module__ = "datetime"


def shifted_time() -> float:
    return true_time() + SHIFT


def shifted_time_ns() -> int:
    return true_time_ns() + round(SHIFT * 1e9)


def shifted_localtime(seconds: float | None = None) -> time.struct_time:
    return true_localtime(shifted_time() if seconds is None else seconds)


def shifted_gmtime(seconds: float | None = None) -> time.struct_time:
    return true_gmtime(shifted_time() if seconds is None else seconds)


def shifted_strftime(form: str, *moment: Any) -> str:
    return true_strftime(form, *moment) if moment else true_strftime(form, shifted_localtime())


if SHIFT:
    vars(time).update(time=shifted_time, time_ns=shifted_time_ns)
    vars(time).update(localtime=shifted_localtime, gmtime=shifted_gmtime, strftime=shifted_strftime)
    vars(datetimes).update(datetime=ShiftedDatetime)
