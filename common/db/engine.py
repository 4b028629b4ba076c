"""Creates the engine and the sessions. By default all operations have timeouts, so no process waits forever.

    engine = make_engine(settings.database_url)             # once per process
    with session_factory(engine).begin() as session:        # one transaction per unit of work
        …

Everything is synchronous; the api calls it from a thread pool.
"""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from common.errors import ConfigError


def database_url(url: str | SecretStr | URL) -> URL:
    """Return `url` with the psycopg driver. Raises ConfigError unless it is a PostgreSQL URL."""
    raw = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(raw)
    except Exception:
        raise ConfigError(
            "TIDAL_DATABASE_URL is not a database URL; write postgresql+psycopg://user:password@host:5432/name"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(f"TIDAL_DATABASE_URL names {parsed.get_backend_name()}; Tidal needs PostgreSQL 15 or newer")
    return parsed.set(drivername="postgresql+psycopg")


def make_engine(
    url: str | SecretStr | URL,
    *,
    application_name: str = "tidal",
    pool_size: int = 5,
    max_overflow: int = 10,
    statement_timeout: float = 20.0,
    lock_timeout: float = 10.0,
    idle_in_transaction_timeout: float = 60.0,
) -> Engine:
    """Return an engine whose operations time out; `statement_timeout` and the other timeouts are in seconds.

    Connecting times out after 5 s, and a connection to a dead server is closed after 15 s. Connections are checked
    before use. Prepared statements are disabled, so that a pooler in transaction mode can be used.
    """
    options = (
        f"-c statement_timeout={round(statement_timeout * 1000)}"
        f" -c lock_timeout={round(lock_timeout * 1000)}"
        f" -c idle_in_transaction_session_timeout={round(idle_in_transaction_timeout * 1000)} -c timezone=UTC"
    )
    return create_engine(
        database_url(url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=10,
        pool_recycle=1800,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": application_name,
            "options": options,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": 15000,
            "prepare_threshold": None,
        },
    )


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return a factory of sessions whose objects can still be read after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def database_unavailable(error: BaseException) -> bool:
    """Return whether `error` is temporary: a failed or lost connection, a timeout, a deadlock, a restarting server.

    This includes a connection that the server closed because its transaction was idle for too long (25P03, which
    psycopg reports as an internal error).
    """
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
