"""The log contains the output of a trainer completely and in order, up to a size limit."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

from services.worker.log_capture import LogCapture


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def run(capture: LogCapture, code: str, cwd: Path | None = None) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=capture.write_fd, stderr=capture.write_fd, cwd=cwd
    ) as process:
        capture.close_write_end()
        process.wait(60)
    capture.close()


def test_both_outputs_are_kept_in_the_order_they_were_written(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "logs" / "1.log", attempt=1)
    run(capture, "import sys\nfor i in range(300):\n (sys.stdout if i % 2 else sys.stderr).write(f'line {i}\\n')")
    assert (tmp_path / "logs" / "1.log").read_text() == "".join(f"line {i}\n" for i in range(300))
    assert capture.tail.endswith("line 299")


def test_the_last_output_of_a_killed_process_is_kept(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    run(capture, "import os, sys\nsys.stdout.write('x' * 200000 + 'last words')\nos.kill(os.getpid(), 9)")
    assert (tmp_path / "1.log").read_text() == "x" * 200000 + "last words\n"


def test_the_file_is_bounded_and_shows_how_much_is_missing(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1, max_bytes=1000)
    run(capture, "print('y' * 5000, end='')")
    assert (tmp_path / "1.log").read_text() == "y" * 1000 + "\n[tidal] 4000 bytes of output were dropped\n"


def test_a_second_attempt_of_the_same_number_appends(tmp_path: Path) -> None:
    for word in ("one", "two"):
        run(LogCapture(tmp_path / "1.log", attempt=1), f"print('{word}')")
    assert (tmp_path / "1.log").read_text() == "one\ntwo\n"


def test_bytes_that_are_no_text_and_a_line_of_10_mb_are_kept_as_they_are(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    run(capture, "import os\nos.write(1, bytes(range(256)))\nfor _ in range(160): os.write(1, b'z' * 65536)")
    assert (tmp_path / "1.log").read_bytes() == bytes(range(256)) + b"z" * (160 * 65536) + b"\n"
    assert len(capture.tail) <= 4000


def test_a_child_that_closes_its_output_and_lives_on_loses_nothing(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    run(capture, "import os\nprint('before', flush=True)\nos.close(1)\nos.write(2, b'after\\n')\nos.close(2)")
    assert (tmp_path / "1.log").read_text() == "before\nafter\n"


def test_the_file_is_complete_while_redis_is_unavailable(tmp_path: Path) -> None:
    capture = LogCapture(
        tmp_path / "1.log", attempt=1, redis_url=f"redis://127.0.0.1:{free_port()}/0", streams=["tidal:test"]
    )
    run(capture, "for i in range(5000): print('line', i)")
    assert (tmp_path / "1.log").read_text() == "".join(f"line {i}\n" for i in range(5000))


def test_a_full_disk_does_not_stop_the_trainer_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "1.log").symlink_to("/dev/full")
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    run(capture, "print('q' * 300000, end='')\nopen('done', 'w').close()", cwd=tmp_path)
    assert (tmp_path / "done").exists()
    assert capture.tail.endswith("q" * 100)


def test_a_grandchild_that_writes_without_end_does_not_keep_close_waiting(tmp_path: Path) -> None:
    capture = LogCapture(tmp_path / "1.log", attempt=1)
    code = "import os\nwhile True: os.write(1, b'and on\\n')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=capture.write_fd, start_new_session=True, stderr=subprocess.DEVNULL
    ) as grandchild:
        closing = threading.Thread(target=capture.close)
        closing.start()
        closing.join(30)
        stuck = closing.is_alive()
        grandchild.kill()
    closing.join()
    assert not stuck
    assert (tmp_path / "1.log").read_bytes().startswith(b"and on\n")
