"""The fixture `desk`, with which tests submit, claim and read jobs in a new database."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.jobs.desk import Desk


@pytest.fixture
def desk(sessions: sessionmaker[Session], settings: Settings) -> Desk:
    """Return shortcuts for submitting, claiming and reading jobs. The database contains only jobs of this test."""
    return Desk(sessions, settings)
