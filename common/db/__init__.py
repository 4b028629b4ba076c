"""The database: engine and sessions, tables, and the state of the schema. Needs PostgreSQL 15 or newer."""

from common.db.base import Base
from common.db.engine import database_unavailable, database_url, make_engine, session_factory
from common.db.models import AccessToken, Analysis, AuditEntry, Checkpoint, Experiment, Job, JobEvent, Outbox, Report
from common.db.schema import SchemaStatus, downgrade, require_schema, schema_status, upgrade, wait_for_schema

__all__ = [
    "AccessToken",
    "Analysis",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "Experiment",
    "Job",
    "JobEvent",
    "Outbox",
    "Report",
    "SchemaStatus",
    "database_unavailable",
    "database_url",
    "downgrade",
    "make_engine",
    "require_schema",
    "schema_status",
    "session_factory",
    "upgrade",
    "wait_for_schema",
]
