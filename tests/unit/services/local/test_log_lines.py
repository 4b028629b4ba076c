"""Every line of a process is written completely to its file, but may be shortened on the terminal."""

from __future__ import annotations

import io
import re
import resource
from pathlib import Path

import pytest
from rich.console import Console

from services.local import log_sink
from services.local.log_sink import LogSink

LINE = "2026-01-31T12:00:00.123456Z [warning  ] lease lapsed                   attempt=2 service=worker job_id=job_1"


def test_a_structured_line_is_short_on_the_terminal_and_complete_in_the_file(tmp_path: Path) -> None:
    screen = io.StringIO()
    sink = LogSink(tmp_path, Console(file=screen, width=40, color_system=None))
    sink.write("worker", LINE + "\n")
    sink.write("worker", "plain words [not markup]")
    sink.write("worker", "   ")
    sink.close()
    shown = screen.getvalue().splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in shown] == [
        "worker    │ lease lapsed  attempt=2 job_id=job_1",
        "worker    │ plain words [not markup]",
    ]
    kept = (tmp_path / "worker.log").read_text().splitlines()
    assert kept[0] == LINE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ plain words \[not markup\]", kept[1])
    assert sink.last_lines("worker", 1) == ["plain words [not markup]"]
    assert sink.last_lines("missing") == []


def test_a_long_file_is_cut_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sink, "MAX_BYTES", 100)
    sink = LogSink(tmp_path)
    for number in range(10):
        sink.write("api", f"line {number} " + "x" * 40)
    sink.close()
    both = (tmp_path / "api.log.1").read_text() + (tmp_path / "api.log").read_text()
    assert "line 9" in both
    assert (tmp_path / "api.log").stat().st_size < 200


def test_a_full_disk_loses_lines_and_reports_their_number_afterwards(tmp_path: Path) -> None:
    screen = io.StringIO()
    sink = LogSink(tmp_path, Console(file=screen, width=40, color_system=None))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink.write("api", "first")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "api.log").stat().st_size, hard))
        sink.write("api", "second")
        sink.write("api", "third")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sink.lost("api") == 2
    assert "third" in screen.getvalue()
    sink.write("api", "fourth")
    sink.close()
    assert sink.lost("api") == 0
    kept = [line.split(" ", 1)[1] for line in (tmp_path / "api.log").read_text().splitlines()]
    assert kept == ["first", "[2 lines could not be written]", "fourth"]


def test_a_flood_of_raw_lines_does_not_push_older_ones_out(tmp_path: Path) -> None:
    sink = LogSink(tmp_path)
    sink.write("api", "the cause of the flood")
    for number in range(35_000):
        sink.write("api", "Traceback (most recent call last):")
        sink.write("api", f"OSError: [Errno 24] Too many open files, connection {number}")
    sink.write("api", "something else")
    sink.write("worker", "Traceback (most recent call last):")
    sink.close()
    kept = (tmp_path / "api.log").read_text()
    assert not (tmp_path / "api.log.1").exists() and len(kept) < 50_000
    assert "the cause of the flood" in kept and "something else" in kept
    counted = re.findall(r"\[([\d,]+) lines like earlier ones were left out\]", kept)
    written = kept.count("Traceback") + kept.count("OSError")
    assert sum(int(count.replace(",", "")) for count in counted) + written == 70_000
    assert "Traceback" in (tmp_path / "worker.log").read_text()


def test_lines_of_our_log_are_all_kept(tmp_path: Path) -> None:
    sink = LogSink(tmp_path)
    for number in range(1000):
        sink.write("worker", LINE.replace("job_1", f"job_{number}"))
    sink.close()
    assert len((tmp_path / "worker.log").read_text().splitlines()) == 1000


def test_the_count_is_written_even_if_no_other_line_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sink, "COUNT_SECONDS", 0.0)
    sink = LogSink(tmp_path)
    for _ in range(101):
        sink.write("api", "again")
    sink.tick()
    assert "[1 lines like earlier ones were left out]" in (tmp_path / "api.log").read_text()
    sink.close()


def test_no_line_controls_a_terminal(tmp_path: Path) -> None:
    screen = io.StringIO()
    sink = LogSink(tmp_path, Console(file=screen, width=200, color_system=None))
    sink.write("api", "\x1b[2Jcleared\x1b]0;title\x07 \x9b1m \u2028 end")
    sink.close()
    for text in (screen.getvalue(), (tmp_path / "api.log").read_text()):
        assert all(one.isprintable() or one == "\n" for one in text)
        assert "\\x1b[2Jcleared\\x1b]0;title\\x07 \\x9b1m \\u2028 end" in text
