"""The local stack stops and restarts all its processes and reports errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from services.local.servers import PostgresServer, ValkeyServer
from tests.integration.local.conftest import Running, still_running
from tidal_client.local_instance import read_instance

Start = Callable[..., Running]


def test_ctrl_c_stops_everything_in_order_and_leaves_no_process(start: Start, folder: Path) -> None:
    running = start(database=True)
    instance = running.ready()
    tree = running.tree()
    assert len(tree) >= 6  # the supervisor, postgres and its helpers, valkey, the api, the worker and its child
    assert stat.S_IMODE((folder / "state.json").stat().st_mode) == 0o600
    assert instance.alive
    assert running.stop() < 12
    assert running.finish() == 0
    assert not still_running(tree)
    assert read_instance(folder) is None
    assert running.lines[-1].endswith("everything has stopped")
    assert "tables are up to date" in (folder / "logs" / "migrate.log").read_text()


def test_a_child_that_does_not_listen_is_killed_at_its_deadline(start: Start) -> None:
    running = start(behaviour="stubborn")
    running.wait_for("worker is up")
    running.ready()
    tree = running.tree()
    assert running.stop(signal.SIGTERM) < 12
    assert "worker did not end in 1 s and was killed" in running.output
    assert not still_running(tree)


def test_a_second_ctrl_c_kills_at_once(start: Start) -> None:
    running = start(behaviour="stubborn")
    running.wait_for("worker is up")
    running.ready()
    tree = running.tree()
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping, which takes at most")
    running.stop()
    assert "was killed" not in running.output  # this would be printed after the time limit of a process
    assert not still_running(tree)


def test_a_crashed_child_starts_again_and_leaves_no_grandchild(start: Start, folder: Path) -> None:
    running = start()
    running.wait_for("worker is up")
    running.ready()
    instance = read_instance(folder)
    assert instance is not None
    worker = psutil.Process(instance.processes["worker"].pid)
    family = [worker, *worker.children(recursive=True)]
    assert len(family) == 2
    (folder / "crash").touch()
    running.wait_for("worker is up", times=2)
    assert "worker falls over" in running.output
    assert "worker ended (exit code 1); starting it again in 0.5 s" in running.output
    assert not still_running(family)
    instance = read_instance(folder)
    assert instance is not None
    assert instance.processes["worker"].restarts == 1


def test_a_full_disk_stops_nothing_and_hinders_no_stop(start: Start, folder: Path) -> None:
    running = start()
    running.wait_for("worker is up")
    running.ready()
    tree = running.tree()
    supervisor = psutil.Process(running.process.pid)
    # From now on, all file writes of the supervisor fail, as on a full disk.
    supervisor.rlimit(psutil.RLIMIT_FSIZE, (0, supervisor.rlimit(psutil.RLIMIT_FSIZE)[1]))
    (folder / "crash").touch()
    running.wait_for("worker is up", times=2)
    assert "cannot write" in running.output
    assert running.stop() < 12
    assert running.finish() == 0
    assert not still_running(tree)
    assert running.lines[-1].endswith("everything has stopped")


def test_kill_9_takes_the_children_and_the_next_one_uses_the_same_servers(start: Start, folder: Path) -> None:
    first = start(database=True)
    before = first.ready()
    first.wait_for("worker is up")
    children = [psutil.Process(before.processes[name].pid) for name in ("api", "worker")]
    servers = {name: before.processes[name].pid for name in ("postgres", "valkey")}
    with redis.Redis.from_url(before.redis_url, socket_timeout=5) as client:
        client.set("kept", "yes")
    first.process.kill()
    first.finish()
    assert not still_running(children)
    assert read_instance(folder) is None
    second = start(database=True)
    after = second.ready()
    assert {name: after.processes[name].pid for name in servers} == servers
    assert (after.token, after.redis_url, after.database_url) == (before.token, before.redis_url, before.database_url)
    assert "PostgreSQL already runs" in second.output
    with redis.Redis.from_url(after.redis_url, socket_timeout=5) as client:
        assert client.get("kept") == b"yes"
    tree = second.tree()
    second.stop()
    assert not still_running(tree)


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_killed_server_comes_back_with_its_address(start: Start, folder: Path, name: str) -> None:
    running = start(database=name == "postgres")
    before = running.ready()
    pid = before.processes[name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    running.wait_for("runs again on port")
    server = (PostgresServer if name == "postgres" else ValkeyServer)(folder / name)
    assert server.running
    assert server.pid != pid
    assert server.url == (before.database_url if name == "postgres" else before.redis_url)


def test_a_second_supervisor_reports_that_one_runs(start: Start, folder: Path) -> None:
    first = start()
    first.ready()
    second = start()
    assert second.finish() == 1
    assert f"the stack of {folder} is already running" in second.output
    assert read_instance(folder) is not None
    assert first.process.poll() is None


def test_two_stacks_stand_side_by_side(start: Start, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    one, two = start(database=True), start(other, database=True)
    try:
        first, second = one.ready(), two.ready()
        assert first.api_url != second.api_url
        assert first.token != second.token
        assert first.database_url != second.database_url
        one.stop()
        assert second.alive
        assert ValkeyServer(other / "valkey").running
        two.stop()
    finally:
        for server in (PostgresServer(other / "postgres"), ValkeyServer(other / "valkey")):
            server.remove()


def test_a_taken_port_is_named_with_its_option_and_nothing_starts(start: Start, folder: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        running = start(port=port, database=True)
        assert running.finish() == 1
    assert f"error: port {port} is in use" in running.output
    assert "--port" in running.output
    assert not (folder / "postgres").exists()


def test_an_api_that_does_not_come_up_is_shown_with_its_log_and_nothing_stays(start: Start, folder: Path) -> None:
    running = start(behaviour="broken", database=True)
    assert running.finish() == 1
    assert "error: the api did not start" in running.output
    assert "no module named tea" in running.lines[-1]
    assert PostgresServer(folder / "postgres").pid is None
    assert ValkeyServer(folder / "valkey").pid is None


def test_servers_that_are_given_are_used_and_left_alone(start: Start, folder: Path, tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "given") as given:
        running = start(TIDAL_REDIS_URL=given.url)
        instance = running.ready()
        assert instance.redis_url == given.url
        assert "valkey" not in json.loads((folder / "state.json").read_text())["processes"]
        running.stop()
        assert given.running
