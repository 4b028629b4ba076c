"""A worker does not start with a database whose schema is not current."""

from __future__ import annotations

import os
import subprocess
import sys

from common.config import PROJECT_ROOT


def test_a_worker_refuses_a_database_that_is_not_migrated(empty_database_url: str, redis_url: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "services.worker"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "TIDAL_DATABASE_URL": empty_database_url, "TIDAL_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 1
    assert "tidal db migrate" in finished.stderr
    assert "Traceback" not in finished.stderr
