"""The end of a trainer is detected, and all processes that it has started are ended as well."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.child.protocol import ChildJob, Start
from services.worker.child_process import OOM_SCORE_ADJUSTMENT, ChildProcess
from services.worker.log_capture import LogCapture
from services.worker.wakeup_pipe import WakeupPipe

START = Start(
    job=ChildJob(job_id="job_1", attempt=1, job_type="lm-training", experiment_id="e", payload={}),
    experiments_dir="experiments",
    data_dir="data",
)
HOLDS_THE_SOCKET = """
import os, subprocess, sys
fd = int(os.environ["TIDAL_CHILD_FD"])
left = subprocess.Popen(["sleep", "600"], pass_fds=[fd], start_new_session=True, stdout=subprocess.DEVNULL)
print(left.pid, flush=True)
os.kill(os.getpid(), 9)
"""
WAITS = "import time\nprint('here', flush=True)\ntime.sleep(600)"
HAS_WORKERS = """
import subprocess, time
for _ in range(3): subprocess.Popen(["sleep", "600"])
print("all here", flush=True)
time.sleep(600)
"""


@pytest.fixture
def wakeup() -> Iterator[WakeupPipe]:
    wakeup = WakeupPipe()
    yield wakeup
    wakeup.close()


def start(code: str, folder: Path) -> tuple[ChildProcess, LogCapture]:
    capture = LogCapture(folder / "1.log", attempt=1)
    child = ChildProcess([sys.executable, "-c", code], capture)
    child.start(START)
    return child, capture


def wait_for_line(capture: LogCapture) -> str:
    deadline = time.monotonic() + 30
    while not (text := capture.path.read_text()).endswith("\n"):
        assert time.monotonic() < deadline, "the child printed nothing"
        time.sleep(0.02)
    return text


def test_a_killed_trainer_is_detected_although_a_process_it_started_holds_its_socket(
    tmp_path: Path, wakeup: WakeupPipe
) -> None:
    child, capture = start(HOLDS_THE_SOCKET, tmp_path)
    began = time.monotonic()
    with pytest.raises(EOFError):
        while True:
            assert time.monotonic() - began < 30
            child.receive(0.2, wakeup)
    left = int(wait_for_line(capture))
    os.kill(left, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.close()
    capture.close()


def test_a_wait_for_the_trainer_ends_when_it_is_woken(tmp_path: Path, wakeup: WakeupPipe) -> None:
    child, capture = start(WAITS, tmp_path)
    threading.Timer(0.2, wakeup.set).start()
    began = time.monotonic()
    assert child.receive(60.0, wakeup) is None
    assert time.monotonic() - began < 30
    child.close()
    capture.close()


def test_data_workers_end_with_their_trainer_which_the_kernel_would_kill_first(tmp_path: Path) -> None:
    child, capture = start(HAS_WORKERS, tmp_path)
    wait_for_line(capture)
    assert child.pid is not None
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    assert len(family) == 4
    assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) >= OOM_SCORE_ADJUSTMENT
    child.close()
    assert psutil.wait_procs(family, timeout=10)[1] == []
    capture.close()
