"""The fixture `job_queue`, with which tests submit, claim and read jobs in a new database."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.jobs.job_queue import JobQueue


@pytest.fixture
def job_queue(sessions: sessionmaker[Session], settings: Settings) -> JobQueue:
    """Return shortcuts for submitting, claiming and reading jobs. The database contains only jobs of this test."""
    return JobQueue(sessions, settings)
