"""The fleet of a test: one database, one Valkey, a health process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.worker.fleet import Fleet


@pytest.fixture
def fleet(settings: Settings, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Fleet]:
    """Health runs; the test starts the workers it wants."""
    with Fleet(settings, sessions, tmp_path) as fleet:
        yield fleet
