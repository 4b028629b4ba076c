"""Limits repeated log lines: the first ones are written, further ones are counted, and one line reports their number.

Lines of exactly the same text form a group with its own limit. A warning or an error also counts towards the group of
its event, whatever the values, and towards the group of all warnings and errors of its logger. The groups of events and
loggers keep a flood of different warnings from pushing older lines out of the log. Exceptions are grouped by type and
by the place that raised them. Information lines with different values are never left out. The number of omitted
lines is written within a minute, and when the process ends. Raw output of programs that do not log is limited by
`services.local.log_sink`.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COUNT_SECONDS = 60.0
"""Seconds from the first omitted line of a group to the line that reports how many were omitted."""
MOST_KEYS = 2000
"""Largest number of groups in memory; the least recently seen groups are forgotten."""
FIELD_CHARACTERS = 200
"""Number of leading characters of a value that are compared to decide whether two lines are the same."""
_VARIES = ("timestamp", "exc_info", "stack_info")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class Allowance:
    """A token bucket for log lines: `lines` of them may be written at once, then one per `seconds_per_line`."""

    lines: int
    seconds_per_line: float


SAME_LINE = Allowance(10, 60.0)
SAME_EXCEPTION = Allowance(10, 60.0)
SAME_EVENT = Allowance(50, 10.0)
SAME_LOGGER = Allowance(500, 1.0)


@dataclass
class _LineGroup:
    """A group of lines that share one limit and one count of omitted lines."""

    allowance: Allowance
    text: str
    logger: str
    level: int
    at: float
    tokens: float = field(init=False)
    left_out: int = 0
    since: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.allowance.lines

    def has_room(self, now: float) -> bool:
        """Refill the token bucket up to the time `now`; return whether one more line may be written."""
        self.tokens = min(self.allowance.lines, self.tokens + (now - self.at) / self.allowance.seconds_per_line)
        self.at = now
        return self.tokens >= 1


class RepeatFilter(logging.Filter):
    """A log filter that omits repeated lines, and calls `write` with records that report how many were omitted."""

    def __init__(self, write: Callable[[logging.LogRecord], object], clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._write = write
        self._clock = clock
        self._groups: OrderedDict[Hashable, _LineGroup] = OrderedDict()
        self._begin()
        atexit.register(self.flush)
        os.register_at_fork(after_in_child=self._begin)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False if the record is only counted and not written.

        Return True for a malformed record, so that the handler reports it.
        """
        if getattr(record, "is_count", False):
            return True
        try:
            return self._admits(record, _groups_of(record))
        except Exception:
            return True

    def _admits(self, record: logging.LogRecord, found: list[tuple[Hashable, str, Allowance]]) -> bool:
        now = self._clock()
        overflown: list[_LineGroup] = []
        with self._lock:
            groups = [self._group(record, now, *key_text_allowance) for key_text_allowance in found]
            while len(self._groups) > MOST_KEYS:
                _, oldest = self._groups.popitem(last=False)
                overflown.append(oldest)
            full = next((group for group in groups if not group.has_room(now)), None)
            if full is None:
                for group in groups:
                    group.tokens -= 1
            else:
                self._count(full, now)
        for group in overflown:
            self._write_count(group, now)
        return full is None

    def flush(self) -> None:
        """Write a line for each group with omitted lines now."""
        self._flush(older_than=0.0)

    def _begin(self) -> None:
        """Reset all counts; also called in a forked child, where the timer thread of the parent does not run."""
        # The lock is reentrant, because a signal handler or a finaliser may log while this thread holds it.
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._groups.clear()

    def _group(
        self, record: logging.LogRecord, now: float, key: Hashable, text: str, allowance: Allowance
    ) -> _LineGroup:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _LineGroup(allowance, text, record.name, record.levelno, now)
        self._groups.move_to_end(key)
        return group

    def _count(self, group: _LineGroup, now: float) -> None:
        if not group.left_out:
            group.since = now
        group.left_out += 1
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        timer = threading.Timer(COUNT_SECONDS, self._on_timer)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no thread can be started; the next omitted line tries again
            return
        self._timer = timer

    def _on_timer(self) -> None:
        self._flush(older_than=COUNT_SECONDS / 2)
        with self._lock:
            self._timer = None
            if any(group.left_out for group in list(self._groups.values())):
                self._start_timer()

    def _flush(self, *, older_than: float) -> None:
        now = self._clock()
        with self._lock:
            due = [group for group in list(self._groups.values()) if group.left_out and now - group.since >= older_than]
            counts = [(group, group.left_out, group.since) for group in due]
            for group in due:
                group.left_out = 0
        for group, left_out, since in counts:
            self._write_record(group, left_out, now - since)

    def _write_count(self, group: _LineGroup, now: float) -> None:
        if group.left_out:
            self._write_record(group, group.left_out, now - group.since)

    def _write_record(self, group: _LineGroup, left_out: int, seconds: float) -> None:
        text = f"{group.text} … repeated {left_out:,} times in {max(1, round(seconds))} s"
        record = logging.LogRecord(group.logger, group.level, __file__, 0, text, None, None)
        record.is_count = True
        # The line is written in an empty context, because the values bound in the present context (a request id) do
        # not belong to the counted lines.
        contextvars.Context().run(self._write, record)


def _groups_of(record: logging.LogRecord) -> list[tuple[Hashable, str, Allowance]]:
    """Return the groups that the record belongs to, as tuples of three items.

    The items are the key of the group, its text in the line that reports omitted lines, and its allowance.
    """
    fields: dict[str, Any] = record.msg if isinstance(record.msg, dict) else {}
    warning = record.levelno >= logging.WARNING
    error_type, place = _exception(fields.get("exc_info") or record.exc_info)
    if fields:
        event = str(fields.get("event", ""))[:FIELD_CHARACTERS]
        # Warnings that differ only in the request id count as the same line. Information lines with different request
        # ids count as different lines, because they may be about the request itself.
        varies = (*_VARIES, "event", "level", "service", *(("request_id",) if warning else ()))
        values = tuple(f"{name}={value!s:.{FIELD_CHARACTERS}}" for name, value in fields.items() if name not in varies)
    else:
        event = _NUMBER.sub("0", str(record.msg)[:FIELD_CHARACTERS].partition("\n")[0])
        values = (record.getMessage()[: 5 * FIELD_CHARACTERS],)
    head = (record.name, record.levelno)
    line = " ".join((event, *values)) if fields else values[0]
    found: list[tuple[Hashable, str, Allowance]] = [((*head, event, place, values), line, SAME_LINE)]
    if place:
        found.append(((*head, error_type, place), f"{event}: {error_type} at {place}", SAME_EXCEPTION))
    if warning:
        found.append(((*head, event), f"{event} (with different values)", SAME_EVENT))
        found.append((head, "(different warnings and errors)", SAME_LOGGER))
    return found


def _exception(given: Any) -> tuple[str, str]:
    """Return type and place of the exception `given`, in any form that logging accepts; two empty strings for none."""
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if not isinstance(error, BaseException):
        return "", ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__, "no place"
    return type(error).__name__, f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
