"""The desk: one fresh database with its settings."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.jobs.desk import Desk


@pytest.fixture
def desk(sessions: sessionmaker[Session], settings: Settings) -> Desk:
    """Jobs of this test alone."""
    return Desk(sessions, settings)
