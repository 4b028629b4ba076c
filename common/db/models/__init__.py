"""The tables, one per file."""

from common.db.models.access_token import AccessToken
from common.db.models.analysis import Analysis
from common.db.models.audit_entry import AuditEntry
from common.db.models.checkpoint import Checkpoint
from common.db.models.experiment import Experiment
from common.db.models.job import Job
from common.db.models.job_event import JobEvent
from common.db.models.outbox import Outbox
from common.db.models.report import Report

__all__ = ["AccessToken", "Analysis", "AuditEntry", "Checkpoint", "Experiment", "Job", "JobEvent", "Outbox", "Report"]
