"""Run the migrations on the database of TIDAL_DATABASE_URL, or on the URL that `common.db.upgrade` passes.

An advisory lock lets only one process migrate at a time; all steps run in one transaction. Offline mode prints SQL.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from common.config import get_settings
from common.db import Base, database_url

LOCK = 7_310_001
"""Advisory lock key of the migrations."""

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
