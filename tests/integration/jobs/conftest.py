"""The fixture `desk`: the jobs of one new database, with its settings."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.jobs.desk import Desk


@pytest.fixture
def desk(sessions: sessionmaker[Session], settings: Settings) -> Desk:
    """Return a desk whose database contains only the jobs of this test."""
    return Desk(sessions, settings)
