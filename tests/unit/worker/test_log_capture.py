"""What a trainer prints is in its log: all of it, in order, bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.worker.log_capture import LogCapture


def run(capture: LogCapture, code: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=capture.write_fd, stderr=capture.write_fd
    ) as process:
        capture.child_has_it()
        process.wait(60)
    capture.close()


def test_both_outputs_are_kept_in_the_order_they_were_written(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "logs" / "1.log", attempt=1)
    run(capture, "import sys\nfor i in range(300):\n (sys.stdout if i % 2 else sys.stderr).write(f'line {i}\\n')")
    assert (tmp_path / "logs" / "1.log").read_text() == "".join(f"line {i}\n" for i in range(300))
    assert capture.tail.endswith("line 299")


def test_the_last_words_of_a_killed_process_are_kept(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    run(capture, "import os, sys\nsys.stdout.write('x' * 200000 + 'last words')\nos.kill(os.getpid(), 9)")
    assert (tmp_path / "1.log").read_text() == "x" * 200000 + "last words\n"


def test_the_file_is_bounded_and_says_what_is_missing(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1, max_bytes=1000)
    run(capture, "print('y' * 5000, end='')")
    assert (tmp_path / "1.log").read_text() == "y" * 1000 + "\n[tidal] 4000 bytes of output were dropped\n"


def test_a_second_attempt_of_the_same_number_appends(tmp_path: Path) -> None:
    for word in ("one", "two"):
        run(LogCapture(tmp_path / "1.log", attempt=1), f"print('{word}')")
    assert (tmp_path / "1.log").read_text() == "one\ntwo\n"
