"""The embedded servers can be stopped, killed and started again without losing data or leaving processes behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from common.errors import ConflictError
from services.local.server_files import SHARED_HOME, free_port, unused_data, write_state
from services.local.servers import EmbeddedServer, PostgresServer, ValkeyServer
from tests.paths import ROOT


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres")
    yield server
    server.remove()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path / "valkey")
    yield server
    server.remove()


def connect(server: PostgresServer) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True)


def client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=5)


def test_a_postgres_keeps_rows_port_and_password_over_a_stop(postgres: PostgresServer) -> None:
    postgres.start()
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        encoding, collation = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'tidal'"
        ).fetchone() or ("", "")
    assert encoding == "UTF8"
    assert collation == "C"
    url = postgres.url
    postgres.stop()
    assert postgres.pid is None
    assert not postgres.running
    again = PostgresServer(postgres.folder)
    again.start()
    assert again.url == url
    assert not again.reused
    with connect(again) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_valkey_keeps_keys_over_kill_9(valkey: ValkeyServer) -> None:
    valkey.start()
    with client(valkey) as connection:
        connection.set("kept", "yes")
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert connection.waitaof(1, 0, 5000)[0] == 1
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)], timeout=5) if psutil.pid_exists(pid) else None
    valkey.start()
    assert valkey.pid != pid
    with client(valkey) as connection:
        assert connection.get("kept") == b"yes"


def test_a_stranger_gets_no_connection(postgres: PostgresServer, valkey: ValkeyServer) -> None:
    postgres.start()
    valkey.start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host="127.0.0.1", port=postgres.port, user="tidal", dbname="tidal", password="guess")
    with pytest.raises(redis.AuthenticationError), redis.Redis(port=valkey.port, socket_timeout=5) as stranger:
        stranger.ping()
    addresses = {
        c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.status == "LISTEN" and c.laddr.port in (postgres.port, valkey.port)
    }
    assert addresses == {"127.0.0.1"}
    for server in (postgres, valkey):
        assert stat.S_IMODE((server.folder / "server.json").stat().st_mode) == 0o600
    processes = [psutil.Process(pid) for pid in (postgres.pid, valkey.pid) if pid]
    secrets = (postgres.state.password, valkey.state.password)
    assert not any(secret in part for process in processes for part in process.cmdline() for secret in secrets)


@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])
def test_a_server_that_outlived_its_starter_is_found_and_used(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    folder = tmp_path / "server"
    script = (
        f"import os, signal; from services.local.servers import {kind.__name__} as S\n"
        f"s = S({str(folder)!r}); s.start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    starter = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert starter.returncode == -signal.SIGKILL
    server = kind(folder)
    try:
        survivor = server.pid
        assert survivor is not None
        server.start()
        assert server.reused
        assert server.pid == survivor
        server.stop()
        assert not psutil.pid_exists(survivor) or psutil.Process(survivor).status() == psutil.STATUS_ZOMBIE
    finally:
        server.remove()


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer])
def test_a_folder_that_was_deleted_can_be_made_anew(kind: type[EmbeddedServer], running: bool, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    first = kind(folder)
    first.start()
    old, pid = first.state, first.pid
    assert pid is not None
    home = folder
    if isinstance(first, PostgresServer):
        home = first.data.parent
        with connect(first) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    if not running:
        first.stop()
    shutil.rmtree(folder)
    second = kind(folder)
    try:
        second.start()
        assert second.running
        assert not second.reused
        assert second.state.password != old.password
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        if home == folder:
            assert second.aside is None
        else:
            aside = second.aside
            assert aside is not None
            assert aside.parent == home.parent
            assert aside in [path for path, size in unused_data() if size > 1_000_000]
            assert home not in [path for path, _ in unused_data()]
            second.stop()
            shutil.rmtree(home)
            aside.rename(home)  # the old data, with which the server accepts the old password
            write_state(folder / "server.json", old)
            third = PostgresServer(folder)
            third.start()
            with connect(third) as connection:
                assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        kind(folder).remove()


def test_a_busy_backend_of_a_killed_postmaster_is_no_obstacle(postgres: PostgresServer) -> None:
    postgres.start()
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    busy = connect(postgres)
    backend = busy.info.backend_pid
    sleeper = threading.Thread(target=_sleep_in, args=(busy,))
    sleeper.start()
    postmaster = postgres.pid
    assert postmaster is not None
    os.kill(backend, signal.SIGSTOP)  # a suspended backend does not notice that the postmaster has ended
    os.kill(postmaster, signal.SIGKILL)
    try:
        postgres.start()
        assert postgres.pid != postmaster
        with connect(postgres) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        assert not psutil.pid_exists(backend) or psutil.Process(backend).status() == psutil.STATUS_ZOMBIE
    finally:
        sleeper.join(10)
        busy.close()


def _sleep_in(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(60)")


def test_a_taken_port_is_named(tmp_path: Path, valkey: ValkeyServer) -> None:
    valkey.start()
    for kind in (PostgresServer, ValkeyServer):
        with pytest.raises(ConflictError, match=f"port {valkey.port} .* in use"):
            kind(tmp_path / f"late-{kind.name}", valkey.port).start()


def test_another_port_is_taken_when_the_usual_one_is_lost(valkey: ValkeyServer, tmp_path: Path) -> None:
    valkey.start()
    port = valkey.port
    valkey.stop()
    with ValkeyServer(tmp_path / "squatter", port):
        valkey.start()
        assert valkey.port != port
        assert valkey.running


def test_an_initdb_that_was_cut_off_is_begun_again(postgres: PostgresServer) -> None:
    postgres.start()
    data = postgres.data
    postgres.stop()
    data.rename(data.with_name("data.new"))
    (data.with_name("data.new") / "PG_VERSION").unlink()
    postgres.start()
    assert postgres.running


def test_remove_leaves_nothing(postgres: PostgresServer) -> None:
    postgres.start()
    home = postgres.data.parent
    postgres.remove()
    assert not postgres.folder.exists()
    assert not home.exists()
    assert home == postgres.folder or home.parent == SHARED_HOME


def test_two_servers_stand_side_by_side(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "one") as one, ValkeyServer(tmp_path / "two", free_port()) as two:
        with client(one) as first, client(two) as second:
            first.set("who", "one")
            assert second.get("who") is None
        assert one.port != two.port
