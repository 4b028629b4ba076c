"""`ServerPaths` removes file paths of this machine from a text and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Settings
from common.config.server_paths import ServerPaths
from common.errors import NotFoundError, StorageError


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerPaths:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    return ServerPaths(
        Settings(
            _env_file=None,
            experiments_dir=tmp_path / "link" / "experiments",
            data_dir=Path("/srv/tidal data"),
            config_dir=Path("/etc/tidal"),
        )
    )


def test_known_folders_have_names(paths: ServerPaths, tmp_path: Path) -> None:
    for given, shown in (
        (f"{tmp_path}/link/experiments/a/model.pth: damaged", "experiments/a/model.pth: damaged"),
        (f"{tmp_path}/disk/experiments/a: [Errno 28]", "experiments/a: [Errno 28]"),
        ("no such corpus: /srv/tidal data/x.txt; below '/srv/tidal data'", "no such corpus: data/x.txt; below 'data'"),
        ("/etc/tidal/a.yaml, line 3", "configs/a.yaml, line 3"),
        ('File "/home/anna/x.py"', 'File "~/x.py"'),
        ("/home/annabel/x and /x/home/anna/y", "/home/annabel/x and /x/home/anna/y"),
        ("there is nothing at /api/jobs", "there is nothing at /api/jobs"),
    ):
        assert paths.hidden(given) == shown


def test_in_server_errors_every_path_is_hidden_and_no_url(paths: ServerPaths) -> None:
    text = "[Errno 13] '/mnt/big/a/b.txt'; /opt/x/y: see http://host/a/b and GET /metrics (1/2)"
    shown = "[Errno 13] '…/b.txt'; …/y: see http://host/a/b and GET /metrics (1/2)"
    assert paths.hidden(text, shorten_unknown=True) == shown
    error = StorageError("/mnt/big/a: full", errors=[{"location": "x", "message": "/mnt/big/a", "free": 3}])
    paths.hide_in(error)
    assert error.message == "…/a: full"
    assert error.errors == [{"location": "x", "message": "…/a", "free": 3}]
    kept = paths.hide_in(NotFoundError("data.source /mnt/their/own.txt: no such file"))
    assert kept.message == "data.source /mnt/their/own.txt: no such file", "a path that the client sent stays"
