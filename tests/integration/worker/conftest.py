"""The fixture `fleet`: a health process with its own database and its own Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.worker.fleet import Fleet


@pytest.fixture
def fleet(settings: Settings, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet whose health process runs; the test starts workers."""
    with Fleet(settings, sessions, tmp_path) as fleet:
        yield fleet
