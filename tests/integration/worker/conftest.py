"""The fixture `fleet`: a `Fleet` with a health process, and with a database and a Valkey of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.worker.fleet import Fleet


@pytest.fixture
def fleet(settings: Settings, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Fleet]:
    """Return a `Fleet` whose health process runs; the test starts the workers."""
    with Fleet(settings, sessions, tmp_path) as fleet:
        yield fleet
