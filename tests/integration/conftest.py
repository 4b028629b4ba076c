"""Real servers for the integration tests: one PostgreSQL and one Valkey per session, an empty database for each test.

`settings` contains the URLs of both servers, and folders that belong to the test. Valkey is emptied before each test
that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from common.db import make_engine, session_factory, upgrade
from services.local.servers import PostgresServer, ValkeyServer
from tests.integration.databases import Databases, connect, create, drop, sibling

TEMPLATE = "tidal_template"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A temporary PostgreSQL server. Durability is off, because no test simulates a power failure."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), settings={"fsync": "off", "full_page_writes": "off"})
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A temporary Valkey server."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def database_template(postgres: PostgresServer) -> str:
    """The name of a migrated database that serves as the template of all copies."""
    with connect(postgres, "postgres") as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    upgrade(sibling(postgres, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer, database_template: str) -> Databases:
    """Return the pool of empty, migrated databases."""
    return Databases(postgres, database_template)


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database without tables."""
    yield from new_database(postgres, "template1")


@pytest.fixture
def database_url(postgres: PostgresServer, databases: Databases) -> Iterator[str]:
    """The URL of an empty, migrated database."""
    name = databases.take()
    yield sibling(postgres, name)
    databases.give_back(name)


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey.url, socket_timeout=5) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A Redis client that decodes replies to strings."""
    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=10) as client:
        yield client


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A SQLAlchemy engine for the test's database."""
    engine = make_engine(database_url, pool_size=10)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """A session factory: `with sessions.begin() as session:`."""
    return session_factory(engine)


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings with the URLs of the real servers and with folders below `tmp_path`, independent of the environment."""
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        experiments_dir=tmp_path / "experiments",
        data_dir=tmp_path / "data",
    )


def new_database(postgres: PostgresServer, template: str) -> Iterator[str]:
    """Create a database and yield its URL; drop the database afterwards, even if processes are connected to it."""
    name = create(postgres, template)
    yield sibling(postgres, name)
    drop(postgres, name)
