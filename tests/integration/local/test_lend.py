"""A backup starts the servers of a stopped stack. The stack cannot start until the backup has stopped them again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg

from services.local.servers import PostgresServer, ValkeyServer
from tests.paths import ROOT


def lend(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.local", "lend", "--folder", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_lent_servers_answer_until_the_input_ends(folder: Path) -> None:
    with lend(folder) as lender:
        assert lender.stdin is not None
        assert lender.stdout is not None
        lent = json.loads(lender.stdout.readline())
        with psycopg.connect(lent["database_url"].replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert lent["experiments_dir"] == str(folder / "experiments")
        with lend(folder) as second:
            _, output = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "is already running" in output
        lender.stdin.close()
        assert lender.wait(30) == 0
    assert PostgresServer(folder / "postgres").pid is None
    assert ValkeyServer(folder / "valkey").pid is None
