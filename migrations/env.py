"""Run the migrations on the database at the URL that `common.db.upgrade` passes, otherwise at TIDAL_DATABASE_URL.

An advisory lock lets only one process migrate at a time, and all migrations run in one transaction. Alembic's offline
mode prints the SQL instead.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from common.config import get_settings
from common.db import Base, database_url

LOCK = 7_310_001
"""Key of the advisory lock that a migrating process takes."""

url = context.config.attributes.get("url") or database_url(get_settings().database_url)

if context.is_offline_mode():
    context.configure(url=url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"connect_timeout": 5})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()
