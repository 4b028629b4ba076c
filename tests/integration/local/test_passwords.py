"""Passwords with any characters, passed on by compose, work for PostgreSQL, Redis, Celery's broker and migrations."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from kombu import Connection
from psycopg import sql
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from common.config import PROJECT_ROOT, Settings
from common.db import make_engine
from services.local.binaries import find_valkey
from services.local.server_files import free_port
from services.local.servers import PostgresServer

PASSWORD = "p@ss/w:o%r#d?&=+ é'\"\\$x"
COMPOSE = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def passed(service: str) -> dict[str, str]:
    """Return the environment that docker-compose.yml sets for a service; values from `.env` (`${…}`) are PASSWORD."""
    given = COMPOSE[service]["environment"]
    return {name: PASSWORD if str(value).startswith("${") else str(value) for name, value in given.items() if value}


@pytest.fixture
def odd_role(postgres: PostgresServer, empty_database_url: str) -> Iterator[str]:
    """Create a role whose password is PASSWORD, and return its database URL without the password."""
    url = make_url(empty_database_url)
    with psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database, autocommit=True
    ) as connection:
        connection.execute(sql.SQL("CREATE ROLE odd SUPERUSER LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
        yield f"postgresql+psycopg://odd@{url.host}:{url.port}/{url.database}"
        connection.execute("DROP OWNED BY odd CASCADE")
        connection.execute("DROP ROLE odd")


def test_compose_hands_over_passwords_apart_from_the_urls() -> None:
    database, redis_url = "postgresql+psycopg://tidal@postgres:5432/tidal", "redis://redis:6379/0"
    for service in ("migrate", "api", "health", "worker", "worker-cpu", "generator", "generator-cpu", "flower"):
        given = passed(service)
        if service not in ("generator", "generator-cpu", "flower"):
            assert (given["TIDAL_DATABASE_URL"], given["TIDAL_DATABASE_URL_PASSWORD"]) == (database, PASSWORD)
        if service != "migrate":
            assert (given["TIDAL_REDIS_URL"], given["TIDAL_REDIS_URL_PASSWORD"]) == (redis_url, PASSWORD)
        assert "" not in given.values()


def test_the_database_takes_the_password_and_only_that(odd_role: str, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, database_url=odd_role, database_url_password=PASSWORD)
    engine = make_engine(settings.database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "odd"
    engine.dispose()
    wrong = make_engine(Settings(_env_file=None, database_url=odd_role, database_url_password="p").database_url)
    with pytest.raises(OperationalError, match="password authentication failed"):
        wrong.connect()
    wrong.dispose()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")},
        "PYTHONPATH": str(PROJECT_ROOT),
        "TIDAL_DATABASE_URL": odd_role,
        "TIDAL_DATABASE_URL_PASSWORD": PASSWORD,
    }
    command = [sys.executable, "-m", *COMPOSE["migrate"]["command"][2:]]
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_redis_is_started_with_the_password_and_takes_it(tmp_path: Path) -> None:
    port = free_port()
    program = f"{find_valkey().path} {tmp_path}/redis.conf --port {port} --bind 127.0.0.1"
    script = COMPOSE["redis"]["command"][2].replace("$$", "$")
    script = script.replace("redis-server /data/redis.conf", program).replace("/data", str(tmp_path))
    environ = {**os.environ, "REDIS_PASSWORD": PASSWORD}
    with subprocess.Popen(["sh", "-c", script], env=environ, stdout=subprocess.DEVNULL) as server:
        try:
            settings = Settings(_env_file=None, redis_url=f"redis://127.0.0.1:{port}/0", redis_url_password=PASSWORD)
            url = settings.redis_url.get_secret_value()
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                until_it_listens(client)
                assert client.ping()
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
            with Connection(url) as broker:
                broker.ensure_connection(max_retries=1)
        finally:
            server.terminate()


def until_it_listens(client: redis.Redis) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            time.sleep(0.02)
