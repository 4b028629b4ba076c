"""Settings of a second installation to restore to, for the tests of backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Settings


@pytest.fixture
def elsewhere(empty_database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Return settings with an empty database and no folders; Redis is shared, because a restore empties it."""
    return Settings(
        _env_file=None,
        database_url=empty_database_url,
        redis_url=redis_url,
        experiments_dir=tmp_path / "elsewhere" / "experiments",
        data_dir=tmp_path / "elsewhere" / "data",
    )
