"""Engine and sessions with timeouts everywhere, so that a database that is away costs seconds, never a hung process.

`make_engine(settings.database_url)` once per process; `with session_factory(engine).begin() as session:` per unit of
work: one transaction, committed at the edge. Sync only; the api calls it from its thread pool.
"""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from common.errors import ConfigError


def database_url(url: str | SecretStr | URL) -> URL:
    """`url` with the psycopg driver; raises ConfigError unless it is a PostgreSQL URL."""
    raw = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(raw)
    except Exception:
        raise ConfigError(
            "TIDAL_DATABASE_URL is no database URL; write postgresql+psycopg://user:password@host:5432/name"
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
    """An engine whose connections give up: connect 5 s, statement and lock as given (seconds), dead peers 15 s.

    Connections are checked before use; prepared statements are off, so a pooler in transaction mode may stand between.
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
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def database_away(error: BaseException) -> bool:
    """Whether another try may not meet `error`: no connection, a lost one, timeout, deadlock, a server that restarts.

    A connection that the server ended while its transaction stood still is among them (25P03, an internal error).
    """
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
