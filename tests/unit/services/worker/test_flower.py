"""Flower starts with a login and without the endpoints that change state."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.config import Settings
from common.errors import ConfigError


def test_flower_does_not_start_without_a_password() -> None:
    from services.worker.flower import flower_environment

    with pytest.raises(ConfigError, match="TIDAL_FLOWER_PASSWORD"):
        flower_environment(Settings(_env_file=None))
    with pytest.raises(ConfigError, match="comma"):
        flower_environment(Settings(_env_file=None, flower_password="p,w"))
    environment = flower_environment(Settings(_env_file=None, flower_password="pw", flower_port=7))
    assert environment["FLOWER_PORT"] == "7"
    assert environment["FLOWER_BASIC_AUTH"] == "tidal:pw"
    assert environment["FLOWER_READ_ONLY"] == "true"
    assert environment["FLOWER_ADDRESS"] == "127.0.0.1"


def test_all_endpoints_that_publish_or_control_are_removed() -> None:
    code = """
from services.worker.flower import remove_writing_endpoints
from services.worker.flower_guard import path_of
from flower import urls
before = {path_of(h) for h in urls.handlers}
remove_writing_endpoints()
print("\\n".join(sorted(before - {path_of(h) for h in urls.handlers})))
print("--")
print("\\n".join(sorted(path_of(h) for h in urls.handlers if "/api/" in path_of(h))))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    removed, remaining = output.split("--\n")
    assert "/api/task/send-task/(.+)" in removed
    assert "/api/worker/shutdown/(.+)" in removed
    assert remaining.split() == [
        "/api/queues/length",
        "/api/task/info/(.*)",
        "/api/task/result/(.+)",
        "/api/task/types",
        "/api/tasks",
        "/api/workers",
    ]
