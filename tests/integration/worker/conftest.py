"""The fixture `workers`: a `Workers` with a health process, and with a database and a Valkey of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.config import Settings
from tests.integration.worker.workers import Workers


@pytest.fixture
def workers(settings: Settings, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Workers]:
    """Return a `Workers` whose health process runs; the test starts the workers."""
    with Workers(settings, sessions, tmp_path) as workers:
        yield workers
