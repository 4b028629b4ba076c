"""`tidal train` waits for disk space, reports the wait, and stops on Ctrl-C while it waits."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from common.config import PROJECT_ROOT


def test_a_training_without_services_reports_its_wait_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.trainer", "--local", "lm", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, "--data", "builtin:stories", "--data-dir", str(tmp_path / "data")],
        cwd=PROJECT_ROOT,
        env={"PATH": "/usr/bin:/bin", "TIDAL_DISK_RESERVE_MB": str(10**9), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "waiting for disk space" in line)
            assert "MiB are free on the disk of the experiments, 1,000,000,000 MiB are needed" in line
            assert "continues by itself" in line
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(30) == 3, rest
        finally:
            process.kill()
    assert not (tmp_path / "out" / "metadata.json").exists(), "the training prepares nothing before there is disk space"
