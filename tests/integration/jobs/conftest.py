"""The fixture `desk`: a `Desk` for the jobs of a new database."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.jobs.desk import Desk


@pytest.fixture
def desk(sessions: sessionmaker[Session], settings: Settings) -> Desk:
    """Return a `Desk` for a database that contains only the jobs of this test."""
    return Desk(sessions, settings)
