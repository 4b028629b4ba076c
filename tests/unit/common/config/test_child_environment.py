"""The environment variables that each process gets, and the permissions of the files that a process writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Settings
from common.config.child_environment import (
    DATABASE_VARIABLES,
    SECRET_VARIABLES,
    TOKEN_VARIABLES,
    child_environment,
    own_environment,
    server_environment,
)
from common.config.environment import OTHER_VARIABLES
from common.config.private_files import apply_umask, close_folder
from common.config.settings import variables

ENVIRON = {
    "PATH": "/bin",
    "LANG": "C.UTF-8",
    "LC_TIME": "C",
    "HOME": "/home/a",
    "PYTHONPATH": "/p",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "0",
    "https_proxy": "http://user:proxy-password@p",
    "HF_TOKEN": "hub-token",
    "PGSSLMODE": "require",
    "PGPASSWORD": "password",
    "AWS_SECRET_ACCESS_KEY": "cloud",
    "GITHUB_TOKEN": "forge",
    "REDIS_URL": "redis://:bare@h",
    "TIDAL_PORT": "1",
    "TIDAL_LOG_LEVEL": "debug",
    "TIDAL_TEST_X": "x",
    **dict.fromkeys(SECRET_VARIABLES, "secret"),
}


def test_every_setting_that_is_a_secret_is_treated_as_one() -> None:
    secret = {
        f"TIDAL_{name.upper()}" for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)
    }
    assert secret <= SECRET_VARIABLES
    assert {name for name in OTHER_VARIABLES if "PASSWORD" in name} <= SECRET_VARIABLES
    assert variables() | OTHER_VARIABLES.keys() | {"PGPASSWORD"} >= SECRET_VARIABLES


def test_a_process_gets_what_it_needs_and_only_named_secrets() -> None:
    plain = own_environment(ENVIRON)
    assert plain.keys() == {
        "PATH", "LANG", "LC_TIME", "HOME", "PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TIDAL_PORT",
        "TIDAL_LOG_LEVEL", "TIDAL_TEST_X",
    }  # fmt: skip
    assert own_environment(ENVIRON, secrets=TOKEN_VARIABLES).keys() == plain.keys() | TOKEN_VARIABLES
    assert own_environment(ENVIRON, database=True).keys() == plain.keys() | {"PGSSLMODE", "PGPASSWORD"}
    assert own_environment(ENVIRON, hub=True).keys() == plain.keys() | {"https_proxy", "HF_TOKEN"}
    assert server_environment(ENVIRON).keys() == {"PATH", "LANG", "LC_TIME"}


def test_the_trainer_gets_the_hub_token_and_no_other_secret() -> None:
    trainer, engine = child_environment(ENVIRON), child_environment(ENVIRON, hub=False)
    assert trainer["HF_TOKEN"] == "hub-token" and "HF_TOKEN" not in engine
    assert trainer["OMP_WAIT_POLICY"] == engine["OMP_WAIT_POLICY"] == "PASSIVE"
    for given in (trainer, engine):
        assert (
            not {"secret", "cloud", "forge", "password"} & set(given.values()) and not given.keys() & DATABASE_VARIABLES
        )


def test_named_variables_are_passed_on_except_secrets_of_tidal() -> None:
    environ = {**ENVIRON, "TIDAL_PASS_ENVIRONMENT": "AWS_SECRET_ACCESS_KEY, TIDAL_AUTH_TOKEN"}
    given = own_environment(environ)
    assert given["AWS_SECRET_ACCESS_KEY"] == "cloud" and "TIDAL_AUTH_TOKEN" not in given


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("setting", "file", "folder"), [("077", 0o600, 0o700), ("0027", 0o640, 0o750)])
def test_the_umask_setting_applies_to_files_and_folders(
    umask: None, tmp_path: Path, setting: str, file: int, folder: int
) -> None:
    apply_umask(Settings(_env_file=None, umask=setting))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == folder


def test_an_invalid_umask_means_private_files(umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_UMASK", "rwx")
    apply_umask()
    (tmp_path / "file").write_text("")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_own_folders_are_closed_and_shared_ones_and_the_home_stay(umask: None, tmp_path: Path) -> None:
    ours, shared, home = (tmp_path / name for name in ("ours", "shared", "home"))
    for folder in (ours, shared, home):
        folder.mkdir(mode=0o755)
    shared.chmod(0o1777)
    assert close_folder(ours, 0o077)
    assert not close_folder(ours, 0o077), "the folder is closed already"
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert not close_folder(shared, 0o077) and stat.S_IMODE(shared.stat().st_mode) == 0o1777
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "home", lambda: home)
        assert not close_folder(home, 0o077) and stat.S_IMODE(home.stat().st_mode) == 0o755
    assert not close_folder(tmp_path / "nothing", 0o077)
