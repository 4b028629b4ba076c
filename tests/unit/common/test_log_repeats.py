"""Repeated log lines are counted, new ones are written, and no line can control a terminal or look like two."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from common import log_repeats
from common.log_repeats import RepeatFilter
from common.plain_text import escaped, escaped_lines

IN_A_PROCESS = [sys.executable, "-c"]


class Log:
    """A log handler with the filter, and with a clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.lines.append(_text(record))  # type: ignore[method-assign]
        self.filter = RepeatFilter(self.handler.handle, lambda: self.now)
        self.handler.addFilter(self.filter)

    def write(self, event: str, level: int = logging.WARNING, logger: str = "a", **fields: Any) -> None:
        message = {"event": event, "level": "x", "timestamp": str(self.now), "service": "t", **fields}
        self.handler.handle(logging.LogRecord(logger, level, "f", 1, message, None, None))


def _text(record: logging.LogRecord) -> str:
    return str(record.msg["event"] if isinstance(record.msg, dict) else record.getMessage())


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.filter.flush()


def test_the_same_line_is_written_a_few_times_and_then_counted(log: Log) -> None:
    for number in range(35_006):
        log.write("accept failed", error="no descriptor", request_id=str(number))
    assert log.lines == ["accept failed"] * 10
    log.filter.flush()
    assert log.lines[10:] == ["accept failed error=no descriptor … repeated 34,996 times in 1 s"]
    log.now += 60
    log.write("accept failed", error="no descriptor")
    assert len(log.lines) == 12


def test_lines_of_information_that_differ_are_all_written(log: Log) -> None:
    for number in range(5000):
        log.write("job claimed", logging.INFO, job_id=f"job_{number}")
    assert len(log.lines) == 5000


def test_warnings_with_different_values_from_clients_are_counted_by_event(log: Log) -> None:
    for number in range(5000):
        log.write("request failed", path=f"/{number}")
    assert len(log.lines) == 50
    log.write("something else")
    assert log.lines[-1] == "something else"


def test_warnings_that_are_all_different_are_counted_by_logger(log: Log) -> None:
    for number in range(5000):
        log.write(f"event {number}")
    log.write("from another logger", logger="b")
    assert len(log.lines) == 501 and log.lines[-1] == "from another logger"


def test_exceptions_are_counted_by_type_and_line(log: Log) -> None:
    for number in range(100):
        try:
            raise ValueError(number)
        except ValueError as error:
            log.write("request failed", logging.ERROR, path=f"/{number}", exc_info=error)
    try:
        raise KeyError(1)
    except KeyError as error:
        log.write("request failed", logging.ERROR, path="/", exc_info=error)
    assert len(log.lines) == 11


def test_memory_is_bounded_and_counts_of_dropped_keys_are_written(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_repeats, "MOST_KEYS", 20)
    for _ in range(15):
        log.write("once", logging.INFO)
    for number in range(100):
        log.write("other", logging.INFO, number=number)
    assert any(line.startswith("once … repeated 5 times") for line in log.lines)


def test_the_count_is_written_by_a_timer_and_at_the_end_of_a_process() -> None:
    program = """
import time
from common import log_repeats
from common.logging import configure, get_logger
log_repeats.COUNT_SECONDS = 0.5
configure("t", json_lines=False)
for _ in range(30): get_logger("a").warning("first")
time.sleep(2)
for _ in range(30): get_logger("a").warning("second")
"""
    ended = subprocess.run([*IN_A_PROCESS, program], capture_output=True, text=True, check=True)
    lines = ended.stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if "first … repeated 20 times" in line)
    second = next(number for number, line in enumerate(lines) if "second … repeated 20 times" in line)
    assert first < next(number for number, line in enumerate(lines) if "second" in line) < second


def test_a_forked_process_has_its_own_counts() -> None:
    program = """
import os
from common.logging import configure, get_logger
configure("t", json_lines=False)
for _ in range(30): get_logger("a").warning("mine")
if os.fork() == 0:
    get_logger("a").warning("of the child")
    os._exit(0)
os.wait()
"""
    ended = subprocess.run([*IN_A_PROCESS, program], capture_output=True, text=True, check=True, timeout=30)
    assert ended.stderr.count("repeated 20 times") == 1 and "of the child" in ended.stderr


@pytest.mark.parametrize("json_lines", [False, True])
def test_foreign_text_stays_on_one_line_and_cannot_control_a_terminal(json_lines: bool) -> None:
    program = f"""
import logging
from common.logging import configure, get_logger
configure("t", json_lines={json_lines})
evil = "a\\x1b[2J\\r\\n2026-11-29T00:00:00Z [info     ] forged\\x9b1m\\u202e\\u2028"
get_logger("a").warning(evil, path=evil, several=[evil], named={{evil: evil}})
logging.getLogger("b").error("%s", evil)
get_logger("c").warning("long", path="x" * 100_000)
try:
    raise ValueError(evil)
except ValueError:
    get_logger("d").exception("failed", path=evil)
    logging.getLogger("e").exception(evil)
"""
    ended = subprocess.run([*IN_A_PROCESS, program], capture_output=True, check=True)
    text = ended.stderr.decode()
    assert all(one.isprintable() or one == "\n" for one in text)
    own = [line for line in text.splitlines() if not line.startswith("    ")]
    assert len(own) == 5
    assert not any(line.startswith("2026-11-29T00:00:00Z") for line in text.split("\n"))
    assert len(text) < 40_000


def test_only_unprintable_characters_are_escaped() -> None:
    assert escaped("Grüße, 世界 – ok") == "Grüße, 世界 – ok"
    assert escaped("a\tb\nc\x1b\u202e") == "a\\tb\\nc\\x1b\\u202e"
    assert escaped("abcdef", 4) == "abcd… (2 more characters)"
    assert escaped_lines("a\n\tb", "  ") == "  a\n      b"


NESTED = """
import gc, logging, signal, sys
from common.logging import configure, get_logger
configure("test")
log = get_logger("a")

class LogsInStr:
    def __str__(self):
        logging.getLogger("b").warning("within")
        return "value"

class LogsWhenCollected:
    def __init__(self):
        self.me = self
    def __del__(self):
        logging.getLogger("c").warning("collected")

signal.signal(signal.SIGALRM, lambda *_: log.info("signal"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
gc.set_threshold(50)
for number in range(5000):
    LogsWhenCollected()
    log.warning("without", number=number, value=LogsInStr())
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""


def test_logging_from_within_the_filter_does_not_deadlock() -> None:
    done = subprocess.run([*IN_A_PROCESS, NESTED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr[-2000:]


def test_a_record_that_cannot_be_formatted_raises_nothing() -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError("no text")

    log = Log()
    for _ in range(20):
        record = logging.LogRecord("a", logging.WARNING, "f", 1, "bad %d", ("x",), None)
        assert log.filter.filter(record)
        assert log.filter.filter(
            logging.LogRecord("a", logging.WARNING, "f", 1, {"event": "e", "x": Bad()}, None, None)
        )


def test_repeated_lines_are_left_out_even_if_the_timer_cannot_start(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(log_repeats.threading.Timer, "start", refused)
    for _ in range(50):
        log.write("full")
    assert log.lines == ["full"] * 10
    log.filter.flush()
    assert log.lines[10:] == ["full … repeated 40 times in 1 s"]
