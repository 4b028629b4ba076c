"""The settings of a second installation, to which the tests restore backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Settings


@pytest.fixture
def elsewhere(empty_database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Return settings with an empty database and empty folders. Redis is shared, as a restore empties it anyway."""
    return Settings(
        _env_file=None,
        database_url=empty_database_url,
        redis_url=redis_url,
        experiments_dir=tmp_path / "elsewhere" / "experiments",
        data_dir=tmp_path / "elsewhere" / "data",
    )
